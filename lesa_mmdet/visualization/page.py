"""A page on which a click shows where models look: ``tools/explore.py``. Needs gradio."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from threading import Lock
from typing import Any

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # gradio reads it when it is imported

try:
    import gradio as gr
except ModuleNotFoundError as error:
    if error.name != 'gradio':
        raise
    raise ImportError(
        "the page needs gradio, which is not installed: pip install 'gradio>=6,<7'"
    ) from error
import mmcv
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError
from starlette.middleware import Middleware
from torch import nn

from ..analysis.maps import Recording
from ..analysis.operators import mixers
from ..apis.predictors import Predictor
from ..models.layers import Operator
from ..utils.errors import UserValueError
from ..utils.images import read_image
from .panels import draw_maps

FORMATS = ('BMP', 'JPEG', 'PNG', 'WEBP')
MAX_BYTES, MAX_PIXELS = 20 * 2**20, 40_000_000  # of an upload
MAX_AGE = 3600  # seconds for which a visitor's files and results are kept
DPI = 60
SHOWN_WIDTH = 400  # pixels; smaller images are enlarged to about that
# What a browser may load: this server's own files, and what is written into the page.
CONTENT_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


@dataclass(frozen=True)
class Scene:
    """What one visitor looks at.

    Attributes:
        pixels (np.ndarray): The image (H, W, 3), RGB.
        recordings (list[Recording]): What each model computed in it.
    """

    pixels: np.ndarray
    recordings: list[Recording]

    @property
    def zoom(self) -> int:
        """How many times larger a small image is shown."""
        return max(1, SHOWN_WIDTH // self.pixels.shape[1])


class Explorer:
    """Models that look at the same images, for any number of visitors.

    Args:
        models (Mapping[str, nn.Module]): Models of ``load_model`` by their titles.

    Attributes:
        titles (list[str]): Titles of the models.
        layers (list[str]): Blocks that all models have and in which one of them has an operator;
            if none has any, all blocks.

    Raises:
        ValueError: If the models have no such block in common.
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self.titles = list(models)
        self._models = list(models.values())
        self._lock = Lock()  # hooks and drawings of two visitors must not mix
        mixing = [mixers(model) for model in self._models]
        common = [name for name in mixing[0] if all(name in found for found in mixing)]
        attending = {
            name for found in mixing for name, layer in found.items() if isinstance(layer, Operator)
        }
        self.layers = [name for name in common if name in attending or not attending]
        if not self.layers:
            raise UserValueError(
                f'{" and ".join(self.titles)} have no block in common: compare models of one '
                'kind and depth of backbone'
            )
        self._watched = [{name: found[name] for name in self.layers} for found in mixing]
        self._predictors = [Predictor.of(model) for model in self._models]

    def open(self, path: str | Path) -> Scene:
        """Run all models on an image, each of them once.

        Raises:
            ValueError: If it is no image.
        """
        pixels = read_image(path)
        with self._lock:
            recordings = [
                Recording(model, path, watched, predict=True)
                for model, watched in zip(self._models, self._watched, strict=True)
            ]
        return Scene(pixels, recordings)

    def pictures(self, scene: Scene, score_thr: float) -> list[np.ndarray]:
        """The image with what each model predicts above a score, enlarged by the scene's zoom."""
        with self._lock:
            drawn = [
                predictor.draw(scene.pixels, recording.prediction, score_thr)
                for predictor, recording in zip(self._predictors, scene.recordings, strict=True)
            ]
        return [mmcv.imrescale(picture, scene.zoom) for picture in drawn]

    def maps(self, scene: Scene, point: Sequence[int], layer: str) -> list[np.ndarray]:
        """What a layer of each model does at a pixel (x, y), drawn over the image.

        Raises:
            ValueError: If a model does not see the point.
        """
        with self._lock:
            return [
                _render(draw_maps(scene.pixels, recording.view, point, recording.at(point, layer)))
                for recording in scene.recordings
            ]


def _render(figure: Figure) -> np.ndarray:
    """A figure as pixels (H, W, 3)."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _save(picture: np.ndarray, folder: str, suffix: str) -> str:
    """Write a picture to a file of its own.

    gradio would name it after its pixels, and overwrite it while it sends it to somebody else.
    """
    descriptor, path = mkstemp(suffix, dir=folder)
    os.close(descriptor)
    mmcv.imwrite(mmcv.rgb2bgr(picture), path)
    return path


def check_upload(path: str | Path) -> None:
    """Look at the header of a file that a stranger has sent.

    Raises:
        ValueError: If it is no image of a known format, or too large.
    """
    size = Path(path).stat().st_size
    if size > MAX_BYTES:
        raise UserValueError(f'the file has {size} bytes; at most {MAX_BYTES} are taken')
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserValueError(f'the file is no image of {", ".join(FORMATS)}, or broken') from error
    if width * height > MAX_PIXELS:
        raise UserValueError(
            f'the image has {width} x {height} pixels; at most {MAX_PIXELS} are taken'
        )


def refuse_addresses(upload: gr.UploadButton) -> None:
    """Let a component take files alone: gradio would fetch what a visitor gives the address of."""
    take = upload.async_move_resource_to_block_cache

    async def take_file(path: Any) -> str | None:
        if re.match('https?:', str(path)):
            raise gr.Error('addresses are not fetched: upload a file')
        return await take(path)

    upload.async_move_resource_to_block_cache = take_file


class LocalOnly:
    """ASGI middleware: neither server nor browser asks another machine for anything."""

    def __init__(self, app: Callable) -> None:
        self._app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_policy(message: dict) -> None:
            if message['type'] == 'http.response.start':
                policy = (b'content-security-policy', CONTENT_POLICY.encode())
                message['headers'] = [*message.get('headers', ()), policy]
            await send(message)

        if re.search('=https?:', scope.get('path', '')):  # gradio would fetch it
            await send(dict(type='http.response.start', status=403, headers=[]))
            await send(dict(type='http.response.body', body=b'addresses are not fetched'))
        else:
            await self._app(scope, receive, send_with_policy)


def build_page(
    explorer: Explorer, folder: str, images: Sequence[str] = (), score_thr: float = 0.3
) -> gr.Blocks:
    """The page: an image, what the models predict in it, and what they do at the clicked point.

    Args:
        explorer (Explorer): The models.
        folder (str): Folder that gradio serves, for the pictures.
        images (Sequence[str]): Images to choose from.
        score_thr (float): Where the slider of scores starts.
    """
    with gr.Blocks(
        title='lesa_mmdet', analytics_enabled=False, delete_cache=(MAX_AGE, MAX_AGE)
    ) as page:
        scene = gr.State(time_to_live=MAX_AGE)
        point = gr.State()
        with gr.Row():
            names = [(Path(path).name, index) for index, path in enumerate(images)]
            picker = gr.Dropdown(
                names, value=0 if images else None, label='Image', elem_id='image',
                visible=bool(images),
            )  # fmt: skip
            upload = gr.UploadButton('Upload an image', file_types=['image'], elem_id='upload')
            refuse_addresses(upload)
            score = gr.Slider(0, 1, score_thr, step=0.05, label='Score above', elem_id='score')
            first_stage = explorer.layers[0].split('.')[0]
            layer = gr.Dropdown(
                explorer.layers,
                value=[name for name in explorer.layers if name.startswith(first_stage)][-1],
                label='Layer',
                elem_id='layer',
            )
        gr.Markdown('Click on a position: below is where the models look from there.')
        pictures, maps = [], []
        with gr.Row():
            for index, title in enumerate(explorer.titles):
                with gr.Column():
                    options = dict(interactive=False, buttons=['fullscreen'])
                    pictures.append(gr.Image(label=title, elem_id=f'picture-{index}', **options))
                    maps.append(gr.Image(label='Maps', elem_id=f'maps-{index}', **options))

        def draw(opened, thr):
            return [_save(picture, folder, '.jpg') for picture in explorer.pictures(opened, thr)]

        def show(path, thr):
            try:
                opened = explorer.open(path)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from error
            return [opened, None, *draw(opened, thr), *[None] * len(maps)]

        def show_listed(index, thr):
            return show(images[index], thr)

        def show_uploaded(path, thr):
            try:
                check_upload(path)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from error
            return show(path, thr)

        def redraw(opened, thr):
            # gradio takes a list of one for the value of a single picture, but a dict never.
            return dict(
                zip(pictures, draw(opened, thr) if opened else [None] * len(pictures), strict=True)
            )

        def look(opened, clicked, layer):
            if not (opened and clicked):
                return dict.fromkeys(maps)
            try:
                drawn = explorer.maps(opened, clicked, layer)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from error
            return {
                panel: _save(drawing, folder, '.png')
                for panel, drawing in zip(maps, drawn, strict=True)
            }

        def click(opened, layer, event: gr.SelectData):
            clicked = [coordinate // opened.zoom for coordinate in event.index]
            return {point: clicked, **look(opened, clicked, layer)}

        private = dict(api_visibility='private', show_progress='minimal')
        shown = [scene, point, *pictures, *maps]
        if images:
            page.load(show_listed, [picker, score], shown, **private)
            picker.input(show_listed, [picker, score], shown, **private)
        upload.upload(show_uploaded, [upload, score], shown, **private)
        score.release(redraw, [scene, score], pictures, **private)
        layer.input(look, [scene, point, layer], maps, **private)
        for picture in pictures:
            picture.select(click, [scene, layer], [point, *maps], **private)
    return page


def serve(
    models: Mapping[str, nn.Module],
    images: Sequence[str] = (),
    *,
    score_thr: float = 0.3,
    host: str = '127.0.0.1',
    port: int | None = None,
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        models (Mapping[str, nn.Module]): Models of ``load_model`` by their titles.
        images (Sequence[str]): Images to choose from.
        score_thr (float): Where the slider of scores starts.
        host (str): Address to listen on; the default is reached from this machine alone.
        port (int, optional): Defaults to the first free one from 7860.

    Raises:
        ValueError: If the models have no block in common.
    """
    with TemporaryDirectory(prefix='lesa_explorer_') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder  # the only files that are served
        page = build_page(Explorer(models), folder, images, score_thr)
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            max_file_size=MAX_BYTES,
            footer_links=[],
            theme=gr.themes.Base(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
            app_kwargs=dict(middleware=[Middleware(LocalOnly)]),
        )
