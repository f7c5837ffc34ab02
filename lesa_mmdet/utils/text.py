"""Showing what comes from a file, which somebody else may have written."""

from collections.abc import Mapping, Sequence
from itertools import islice
from os import PathLike, fspath
from typing import Any

FIRST = 4  # entries of a list or dict that are shown
DEPTH = 2  # levels of lists in lists that are shown


def shown(value: Any, limit: int = 100) -> str:
    """Show what comes from a file: in one line, without control characters, and not too long.

    Whatever a message quotes of a file (a key, a name, a path, another library's error about its
    content) passes here. So a name can neither move the cursor of a terminal, nor forge a line of a
    log, nor fill it. Takes no longer for a long value than for a short one, and runs nothing of it.

    Args:
        value (Any): Text, a path or an error, which are shown without quotes; anything else as
            Python writes it.
        limit (int): Number of characters at most, but for a note on how much was cut.

    Returns:
        str: Printable characters; others are escaped as Python does.

    Example:
        >>> shown('layer.\\x1b[2J')
        'layer.\\\\x1b[2J'
        >>> shown([1, 'a', None])
        "[1, 'a', None]"
    """
    if isinstance(value, (PathLike, BaseException)):
        value = str(value) if isinstance(value, BaseException) else fspath(value)
    text = value if isinstance(value, str) else _describe(value, limit, DEPTH)
    start = text[:limit]
    escaped = start if start.isprintable() else ''.join(map(_escape, start))
    if len(text) <= limit and len(escaped) <= limit:
        return escaped
    return f'{escaped[:limit]}... ({len(text):,} characters)'


def readable(text: str) -> str:
    """A path or an argument as text that can be drawn or encoded.

    What the system's encoding cannot decode, Python keeps as bytes within text (surrogates). They
    are taken for UTF-8.

    Example:
        >>> readable('caf\\udcc3\\udca9')
        'café'
    """
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')


def shorten(values: Sequence[Any], first: int = 10) -> str:
    """Show the first of several values, as :func:`shown` does, with a comma between them."""
    return ', '.join(map(shown, values[:first])) + ', ...' * (len(values) > first)


def _escape(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _describe(value: Any, limit: int, depth: int) -> str:
    """As ``repr``, of the types that files hold, with the first entries only."""
    if isinstance(value, str):
        return repr(str(value[: limit + 1]))
    if isinstance(value, (bytes, bytearray)):
        return repr(bytes(value[: limit + 1]))
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to write long ones
        return f'a number of {value.bit_length():,} bits'
    if value is None or isinstance(value, (bool, int, float, complex)):
        return repr(value)
    if isinstance(value, type):
        return value.__name__
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return f'a value of type {type(value).__name__}'
    begin, end = ('[', ']') if isinstance(value, list) else ('(', ')')
    if isinstance(value, (Mapping, set, frozenset)):
        begin, end = '{', '}'
    if depth == 0 and value:
        return f'{begin}...{end}'
    if isinstance(value, Mapping):
        parts = [
            f'{_describe(key, limit, depth - 1)}: {_describe(child, limit, depth - 1)}'
            for key, child in islice(value.items(), FIRST)
        ]
    else:
        parts = [_describe(child, limit, depth - 1) for child in islice(value, FIRST)]
    parts += ['...'] * (len(value) > FIRST)
    comma = ',' if isinstance(value, tuple) and len(value) == 1 else ''
    return f'{begin}{", ".join(parts)}{comma}{end}'
