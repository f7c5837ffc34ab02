"""Reading what a server sends, which may say little, be slow, or never end."""

import re
import time
from collections.abc import Iterator
from http.client import HTTPResponse

TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 20
SLOW_TIME, SLOW_BYTES = 60, 100_000  # in so many seconds at least so many bytes have to come


class TooSlowError(OSError):
    """A server sends next to nothing, for which nobody waits to the end."""


def read_length(answer: HTTPResponse) -> int | None:
    """How long a server says that its answer is; None if it says nothing of use."""
    length = answer.headers.get('Content-Length') or ''
    return int(length) if re.fullmatch('[0-9]{1,19}', length) else None


def read_chunks(answer: HTTPResponse) -> Iterator[bytes]:
    """What comes of an answer, in parts.

    Raises:
        OSError: If nothing comes for long.
        TooSlowError: If next to nothing comes: byte by byte would take for ever.
    """
    begun, came = time.monotonic(), 0
    while chunk := answer.read1(CHUNK):
        yield chunk
        came += len(chunk)
        seconds = time.monotonic() - begun
        if seconds > SLOW_TIME:
            if came < SLOW_BYTES:
                raise TooSlowError(f'only {came:,} bytes came in {seconds:.0f} s')
            begun, came = time.monotonic(), 0
