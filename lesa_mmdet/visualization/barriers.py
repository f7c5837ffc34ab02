"""The two barriers of the page: who may ask its server, and whom a browser may ask for it."""

import re
import socket
from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

ANY = ''  # as a name: every address
POLICY = {
    'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    'cross-origin-resource-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
}


class OwnNames:
    """Barrier against other pages: a request names this server, and comes from its own page.

    It stops a foreign page whose name has been made to point here (DNS rebinding: 421), and one
    that sends an upload from where it is (403).
    """

    def __init__(self, app: Callable, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(names)

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        answer = self._refuse(Request(scope)) if scope['type'] == 'http' else None
        await (answer or self._app)(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        host = request.headers.get('host', '').lower()
        name = re.fullmatch(r'(\[[\da-f:.]+\]|[^][@:/\s]+)(:\d+)?', host)
        if not name or not self._is_own(name[1].strip('[]')):
            return PlainTextResponse('this server has another name', 421)
        origin = request.headers.get('origin')
        if origin is None:
            is_own = request.method in ('GET', 'HEAD')
        else:
            is_own = origin.lower() in (f'http://{host}', f'https://{host}')
        return None if is_own else PlainTextResponse('only the page itself may ask for this', 403)

    def _is_own(self, name: str) -> bool:
        # Nobody can make an address point elsewhere, as they can a name.
        return name in self._names or (ANY in self._names and _is_address(name))


class OnlyFromHere:
    """Barrier against what might get into the page: a browser loads from this server alone.

    It stops pictures, scripts and requests to other machines, other pages that frame this one,
    and copies in the browser's cache.
    """

    def __init__(self, app: Callable) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in POLICY.items()]

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_policy(message: dict) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] = [*message.get('headers', ()), *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def own_names(host: str, listener: socket.socket) -> set[str]:
    """The names under which a server can be asked for; ANY stands for all addresses."""
    address = listener.getsockname()[0]
    names = {host.lower(), address}
    if address in ('0.0.0.0', '::'):
        names |= {ANY, 'localhost', socket.gethostname().lower()}
    elif address == '::1' or address.startswith('127.'):
        names.add('localhost')
    return names


def _is_address(name: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
            return True
        except OSError:
            pass
    return False
