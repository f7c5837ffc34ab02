"""A page on which a click shows where models look: ``tools/explore.py``. Needs starlette, uvicorn.

The server answers with numbers, and ``web/page.js`` draws them. It fetches nothing, writes no file,
and runs nothing that a visitor sends.
"""

import os
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

try:
    import anyio
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as error:
    raise ImportError(
        f'the page needs {error.name}, which is not installed: pip install starlette uvicorn'
    ) from error
from anyio.to_thread import run_sync
from torch import nn

from ..utils.errors import UserError, UserValueError
from ..utils.images import is_url, read_image
from ..utils.text import shown
from .barriers import OnlyFromHere, OwnNames, own_names
from .explorer import MAX_BYTES, MIN_SCORE, Explorer, Scene, Scenes, read_upload

WEB = Path(__file__).parent / 'web'
PORTS = range(7860, 7960)  # where a free one is looked for
MAX_ARRIVING = 16 * MAX_BYTES  # bytes of all uploads that arrive or are not decoded yet
MAX_WAITING = 64  # images that wait for the models
UPLOAD_TIME = 120  # seconds that one may take
IDLE_TIME, ANSWER_TIME = 30, 900  # seconds of a connection without a request, or with one of them
LOOK_TIME = 5  # seconds after which that is looked at again
BUSY = 'Too many images arrive: try again in a minute.'
GONE = (
    'Your image is no longer kept, because others needed the memory or an hour has passed: '
    'choose it again.'
)


class Page:
    """What the server answers. One scene a visitor, who is a number that the browser has drawn.

    Args:
        explorer (Explorer): The models.
        images (Sequence[str]): Images to choose from.
        score_thr (float): Where the slider of scores starts.
        names (Collection[str]): As of :func:`own_names`.

    Attributes:
        app (Starlette): The server's application.
        scenes (Scenes): What visitors look at.
    """

    def __init__(
        self, explorer: Explorer, images: Sequence[str], score_thr: float, names: Collection[str]
    ) -> None:
        self._explorer, self._images, self._score_thr = explorer, images, score_thr
        self.scenes = Scenes()
        self._of_list = WeakValueDictionary()  # scenes that somebody looks at, by image
        self._arriving = 0  # bytes
        # An upload is decoded and run after those before it; clicks do not wait for either.
        self._decoding, self._running = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        self._looking = anyio.CapacityLimiter(os.cpu_count() or 1)
        visitor = '/scenes/{visitor}'
        self.app = Starlette(
            routes=[
                Route('/settings', self.settings),
                Route(visitor, self.open, methods=['PUT']),
                Route(visitor, self.leave, methods=['DELETE']),
                Route(f'{visitor}/image', self.image),
                Route(f'{visitor}/look', self.look),
                Mount('/', StaticFiles(directory=WEB, html=True)),
            ],
            middleware=[Middleware(OnlyFromHere), Middleware(OwnNames, names=names)],
            exception_handlers={
                UserError: lambda _, error: PlainTextResponse(str(error), 400),
                ClientDisconnect: lambda *_: Response(status_code=400),
                Exception: lambda *_: PlainTextResponse(
                    'That failed; the terminal in which the page was started says why.', 500
                ),
            },
        )

    async def settings(self, request: Request) -> Response:
        """What the page can choose from, and what it starts with."""
        return JSONResponse(
            dict(
                titles=list(map(shown, self._explorer.titles)),
                layers=self._explorer.layers,
                layer=self._explorer.first_layer,
                images=[shown(Path(path).name) for path in self._images],
                score=self._score_thr,
                min_score=MIN_SCORE,
                max_bytes=MAX_BYTES,
            )
        )

    async def open(self, request: Request) -> Response:
        """Run the models on an image of the list (``?image=3``), or on the one that is sent."""
        visitor = self._visitor(request)
        chosen = request.query_params.get('image')
        if chosen is None:
            scene = await self._open_upload(request)
        else:
            if not (re.fullmatch('[0-9]{1,9}', chosen) and int(chosen) < len(self._images)):
                raise UserValueError(
                    f'there is no image {shown(chosen)}: there are {len(self._images)}'
                )
            scene = await run_sync(self._open_listed, int(chosen), limiter=self._running)
        if not await request.is_disconnected():
            self.scenes.put(visitor, scene)
        return JSONResponse(dict(size=scene.size, point=scene.point, findings=scene.findings))

    def _open_listed(self, index: int) -> Scene:
        """The scene of an image of the list, which all visitors who look at it share."""
        scene = self._of_list.get(index)
        if scene is None:
            path = self._images[index]
            try:
                pixels = read_image(path)
            except UserError as error:  # which names a path of this machine
                name = shown(Path(path).name)
                raise UserValueError(f'{name} is gone, or no image') from error
            scene = self._of_list[index] = self._explorer.open(pixels)
        return scene

    async def leave(self, request: Request) -> Response:
        """Forget what a visitor has looked at."""
        self.scenes.drop(self._visitor(request))
        return Response(status_code=204)

    async def image(self, request: Request) -> Response:
        """The image of a visitor's scene."""
        return Response(self._scene(request).image, media_type='image/jpeg')

    async def look(self, request: Request) -> Response:
        """What a layer does at a pixel: ``?layer=layer3.1&x=10&y=20``."""
        scene = self._scene(request)
        asked = request.query_params
        try:
            point = int(asked['x']), int(asked['y'])
        except (KeyError, ValueError) as error:
            raise UserValueError('x and y are needed, the pixel as whole numbers') from error
        looks = await run_sync(
            self._explorer.look, scene, point, asked.get('layer', ''), limiter=self._looking
        )
        return JSONResponse(looks)

    async def _open_upload(self, request: Request) -> Scene:
        """The scene of the file that is sent. What waits on the way to it is bounded, too."""
        content = bytearray()
        try:
            with anyio.fail_after(UPLOAD_TIME):
                async for chunk in request.stream():
                    content += chunk
                    self._arriving += len(chunk)
                    if len(content) > MAX_BYTES:
                        raise HTTPException(413, f'at most {MAX_BYTES} bytes are taken')
                    if self._arriving > MAX_ARRIVING:
                        raise HTTPException(503, BUSY)
            pixels = await run_sync(read_upload, content, limiter=self._decoding)
        except TimeoutError as error:
            raise HTTPException(408, f'The upload took more than {UPLOAD_TIME} s.') from error
        finally:
            self._arriving -= len(content)
        if self._running.statistics().tasks_waiting >= MAX_WAITING:
            raise HTTPException(503, BUSY)
        return await run_sync(self._explorer.open, pixels, limiter=self._running)

    def _visitor(self, request: Request) -> str:
        visitor = request.path_params['visitor']
        if not re.fullmatch('[0-9a-f]{32}', visitor):
            raise HTTPException(404)
        return visitor

    def _scene(self, request: Request) -> Scene:
        scene = self.scenes.get(self._visitor(request))
        if scene is None:
            raise HTTPException(410, GONE)
        return scene


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
        UserValueError: If the models have no block in common, an image is at a URL, there is no
            such address, or the port is taken.
    """
    for image in filter(is_url, images):
        raise UserValueError(f'the page fetches nothing: download {image}, and give the file')
    explorer = Explorer(models)
    with listen(host, port) as listener:
        page = Page(explorer, images, score_thr, own_names(host, listener))
        name = f'[{host}]' if ':' in host else host
        print(f'Open http://{name}:{listener.getsockname()[1]} in a browser; Ctrl-C ends the page.')
        uvicorn.Server(uvicorn_config(page.app)).run(sockets=[listener])


class ImpatientProtocol(H11Protocol):
    """HTTP that ends a connection which sends no request, or takes no answer, for long.

    Each is an open file of the server, which has so many and no more for all visitors. uvicorn ends
    those alone that say nothing at all between two requests.
    """

    def connection_made(self, transport: Any) -> None:
        """Begin to look at it."""
        super().connection_made(transport)
        self._look((None, True), 0)

    def _look(self, before: tuple[Any, bool], seconds: float) -> None:
        now = self.cycle, self.cycle is None or self.cycle.response_complete
        seconds = seconds + LOOK_TIME if now == before else 0
        if seconds > (IDLE_TIME if now[1] else ANSWER_TIME):
            self.transport.abort()
        elif not self.transport.is_closing():
            self.loop.call_later(LOOK_TIME, self._look, now, seconds)


def uvicorn_config(app: Starlette) -> uvicorn.Config:
    """How the page is served: quietly, and believing no header about who asks."""
    return uvicorn.Config(
        app, http=ImpatientProtocol, ws='none', lifespan='off', log_level='warning',
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip


def listen(host: str, port: int | None) -> socket.socket:
    """Listen on a port, or on the first free one.

    Raises:
        UserValueError: If that cannot be.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    for candidate in PORTS if port is None else [port]:
        try:
            return socket.create_server((host, candidate), family=family)
        except (OSError, OverflowError) as error:
            reason = error
            if isinstance(error, socket.gaierror):
                break
    tried = f'{PORTS[0]} to {PORTS[-1]}' if port is None else port
    raise UserValueError(f'cannot listen on {host}, port {tried}: {reason}') from reason
