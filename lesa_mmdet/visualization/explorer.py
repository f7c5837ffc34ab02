"""Models that look at the same images: what they find, and where each of their positions looks."""

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from time import monotonic
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.structures import BaseDataElement
from PIL import Image, ImageOps
from pycocotools import mask as coco_masks
from torch import nn

from ..analysis.maps import PositionMaps, Recording, View
from ..analysis.operators import mixers
from ..apis.predictors import Predictor
from ..models.layers import Operator
from ..utils.errors import UserValueError
from ..utils.text import shown
from .panels import heats, to_boxes

FORMATS = ('BMP', 'JPEG', 'PNG', 'WEBP')
MAX_BYTES, MAX_PIXELS = 20 * 2**20, 40_000_000  # of an upload
MAX_RATIO = 20  # of an image's sides: a model would enlarge the shorter one
MAX_SIDE = 1280  # pixels: larger images are scaled down before a model sees them
SHOWN_SIDE = 960  # pixels: smaller images and their masks are enlarged to it, smoothly
MIN_SCORE = 0.05  # of what is shown at all
MAX_KEPT = 2**30  # bytes of what is kept for all visitors together
MAX_AGE = 3600  # seconds for which it is kept when nobody looks at it


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and what models computed in it.

    Attributes:
        image (bytes): The image as it is shown, a JPEG; small ones are enlarged.
        size (tuple[int, int]): Width and height of the image as models see it, in pixels.
        findings (list[list[dict]]): What each model predicts: name, score and, of a detector, the
            box (left, top, right, bottom) and the outline of the mask as the path of an SVG.
        point (tuple[int, int]): Pixel (x, y) to look at first.
        recordings (list[Recording]): What the layers of each model computed.
    """

    image: bytes
    size: tuple[int, int]
    findings: list[list[dict[str, Any]]]
    point: tuple[int, int]
    recordings: list[Recording]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return len(self.image) + sum(recording.nbytes for recording in self.recordings)


class Explorer:
    """Models that look at the same images.

    Args:
        models (Mapping[str, nn.Module]): Models of ``load_model`` by their titles.

    Attributes:
        titles (list[str]): Titles of the models.
        layers (list[str]): Blocks that all models have and in which one of them has an operator;
            if none has any, all blocks.

    Raises:
        UserValueError: If the models have no such block in common.
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self.titles = list(models)
        self._models = list(models.values())
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

    @property
    def first_layer(self) -> str:
        """The layer to look at first: the last of the first stage."""
        stage = self.layers[0].rpartition('.')[0]
        return [name for name in self.layers if name.startswith(f'{stage}.')][-1]

    def open(self, pixels: np.ndarray) -> Scene:
        """Run all models on an image (H, W, 3), RGB, each of them once.

        One call at a time: the layers are recorded by hooks on the models.
        """
        pixels = fit_image(pixels)
        height, width = pixels.shape[:2]
        recordings, findings = [], []
        for model, watched, predictor in zip(
            self._models, self._watched, self._predictors, strict=True
        ):
            recording = Recording(model, pixels, watched, predict=True)
            findings.append(_find(predictor, recording.prediction, (width, height)))
            recording.prediction = None  # masks of all pixels
            recordings.append(recording)
        point = _most_certain(findings, (width, height))
        return Scene(_encode(pixels), (width, height), findings, point, recordings)

    def look(self, scene: Scene, point: Sequence[int], layer: str) -> list[dict[str, Any]]:
        """What a layer of each model does at a pixel (x, y), ready to be drawn.

        Returns:
            list[dict]: ``cell``, the box of the position in the image; ``field``, boxes of the
            local field, or None; ``extent``, the box of the whole map; ``heats``, each with
            ``name``, ``low`` and ``high``, the values of transparent and of opaque, ``shape`` and
            ``values``, uint8 between the two in base64.

        Raises:
            UserValueError: If a model does not see the point, or there is no such layer.
        """
        if layer not in self.layers:
            raise UserValueError(f'there is no layer {shown(layer)}: {", ".join(self.layers)}')
        return [_pack(recording.view, recording.at(point, layer)) for recording in scene.recordings]


class Scenes:
    """The scene of each visitor. All of them together keep within a bound of memory.

    Used by one thread alone. Visitors may look at the same scene; it counts once.

    Args:
        max_bytes (int): If there is more, who has not looked for the longest time loses theirs;
            the last scene stays, however large.
        max_age (float): Seconds after which a scene that nobody looks at is dropped.
    """

    def __init__(self, max_bytes: int = MAX_KEPT, max_age: float = MAX_AGE) -> None:
        self._max_bytes, self._max_age = max_bytes, max_age
        self._kept: OrderedDict[str, tuple[Scene, float]] = OrderedDict()  # the oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, visitor: str, scene: Scene) -> None:
        """Give a visitor a scene, in place of the one before."""
        self._kept[visitor] = scene, monotonic()
        self._kept.move_to_end(visitor)
        self.trim()

    def get(self, visitor: str) -> Scene | None:
        """The scene of a visitor who looks at it now, or None."""
        self.trim()
        if visitor in self._kept:
            scene, _ = self._kept.pop(visitor)
            self._kept[visitor] = scene, monotonic()
            return scene
        return None

    def drop(self, visitor: str) -> None:
        """Forget the scene of a visitor who has left."""
        self._kept.pop(visitor, None)

    def trim(self) -> None:
        """Drop what is too old or too much, the oldest first."""
        while self._kept:
            visitor, (_, used) = next(iter(self._kept.items()))
            is_old = monotonic() - used > self._max_age
            if not is_old and (len(self._kept) == 1 or self.nbytes <= self._max_bytes):
                break
            del self._kept[visitor]

    @property
    def nbytes(self) -> int:
        """Bytes of all scenes."""
        return sum({id(scene): scene.nbytes for scene, _ in self._kept.values()}.values())


def read_upload(content: bytes | bytearray) -> np.ndarray:
    """The image (H, W, 3), RGB, in a file that a stranger has sent, no larger than it is shown.

    Raises:
        UserValueError: If it is no image of a known format, or too large.
    """
    if len(content) > MAX_BYTES:
        raise UserValueError(f'the file has {len(content)} bytes; at most {MAX_BYTES} are taken')
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size  # of the header alone
            if width * height <= MAX_PIXELS:
                return fit_image(_decode(image))
    except UserValueError:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise UserValueError(f'the file is no image of {", ".join(FORMATS)}, or broken') from error
    raise UserValueError(f'the image has {width} x {height} pixels; at most {MAX_PIXELS} are taken')


def _decode(image: Image.Image) -> np.ndarray:
    """The pixels (H, W, 3), RGB, of an image of which the header has been read.

    By Pillow: OpenCV allocates what a PNG of a few bytes says that its chunks have, gigabytes.
    """
    image.draft('RGB', (MAX_SIDE, MAX_SIDE))  # of a large JPEG only as many as are needed
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):  # grey, of 16 bits
        return np.stack((np.asarray(image) >> 8,) * 3, axis=-1).astype(np.uint8)
    return np.asarray(image.convert('RGB'))


def fit_image(pixels: np.ndarray) -> np.ndarray:
    """Scale an image (H, W, 3) down, if it is larger than it is shown.

    Raises:
        UserValueError: If it is so narrow that a model would have to enlarge it beyond measure.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_RATIO * min(height, width):
        raise UserValueError(
            f'the image has {width} x {height} pixels; the longer side may be at most {MAX_RATIO} '
            'times the shorter one'
        )
    if max(height, width) <= MAX_SIDE:
        return pixels
    return mmcv.imrescale(pixels, (MAX_SIDE, MAX_SIDE), interpolation='area')


def _encode(pixels: np.ndarray) -> bytes:
    """A JPEG of an image (H, W, 3), RGB, as large as it is shown."""
    zoom = max(1, SHOWN_SIDE / max(pixels.shape))
    shown = mmcv.imrescale(mmcv.rgb2bgr(pixels), zoom, interpolation='bicubic')
    return cv2.imencode('.jpg', shown, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes()


def _find(
    predictor: Predictor, prediction: BaseDataElement, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """What a model predicts, the most certain first, in numbers of JSON."""
    names = {category['id']: category['name'] for category in predictor.categories()}
    results = [r for r in predictor.describe(prediction) if r['score'] >= MIN_SCORE]
    findings = []
    for result in sorted(results, key=lambda result: -result['score']):
        finding = dict(name=shown(names[result['category_id']]), score=float(result['score']))
        if 'bbox' in result:
            left, top, width, height = map(float, result['bbox'])
            finding['box'] = [left, top, left + width, top + height]
        if 'segmentation' in result:
            finding['outline'] = _outline(coco_masks.decode(result['segmentation']), size)
        findings.append(finding)
    return findings


def _outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """The border of a mask (H, W) as the path of an SVG, in pixels of the image."""
    zoom = max(1, SHOWN_SIDE / max(size))
    enlarged = cv2.resize(mask * 255, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours(
        (enlarged > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    paths = []
    for contour in contours:
        points = (cv2.approxPolyDP(contour, 0.7, closed=True)[:, 0] + 0.5) / zoom
        paths.append('M' + 'L'.join(f'{x:.2f} {y:.2f}' for x, y in points) + 'Z')
    return ''.join(paths)


def _most_certain(findings: list[list[dict[str, Any]]], size: tuple[int, int]) -> tuple[int, int]:
    """The pixel (x, y) in the middle of what the first model is surest of, or of the image."""
    found = next((finding for finding in findings[0] if 'box' in finding), None)
    left, top, right, bottom = found['box'] if found else (0, 0, *size)
    x, y = (left + right) / 2, (top + bottom) / 2
    return int(min(max(x, 0), size[0] - 1)), int(min(max(y, 0), size[1] - 1))


def _pack(view: View, maps: PositionMaps) -> dict[str, Any]:
    """Maps in numbers of JSON: see :meth:`Explorer.look`."""
    position = np.array(maps.position)[::-1] + 0.5
    corners = view.to_image(np.array([(0, 0), maps.shape[::-1]]), maps.shape)
    packed = []
    for name, values, low in heats(maps):
        high = float(values.max())
        levels = (values - low) / max(high - low, np.finfo(np.float32).tiny)
        packed.append(
            dict(
                name=name,
                low=float(low),
                high=high,
                shape=values.shape,
                values=b64encode(np.rint(levels * 255).astype(np.uint8).tobytes()).decode(),
            )
        )
    return dict(
        cell=to_boxes([position], view, maps.shape)[0],
        field=None if maps.field is None else to_boxes(maps.field, view, maps.shape),
        extent=corners.ravel().tolist(),
        heats=packed,
    )
