"""How structures from files are read: what they have to be is written down, and compared with.

A schema is

* a :class:`Kind`: a predicate with a name;
* a dict: a mapping that has these keys; one whose name ends with ``?`` may be missing. Others are
  left alone;
* a list of one schema: a list or tuple of such values;
* :class:`Each`: a mapping of any keys that are text, which others may print, to such values.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .errors import UserValueError
from .paths import open_regular
from .text import shown


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        name (str): What a value has to be, for people.
        matches (Callable[[Any], bool]): Whether it is.
    """

    name: str
    matches: Callable[[Any], bool]


@dataclass(frozen=True)
class Each:
    """A mapping of text to values of one schema."""

    schema: Any


def whole(least: int, most: int) -> Kind:
    """Whole numbers of a range."""
    name = f'a whole number from {least:,} to {most:,}'
    return Kind(name, lambda v: _is_number(v, Integral) and least <= v <= most)


def _is_number(value: Any, kind: type) -> bool:
    # `Integral` and `Real` are NumPy's, too; bool is a number for Python alone.
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value, Real) and math.isfinite(value)
    except OverflowError:  # a number of 400 digits
        return False


ANY = Kind('anything', lambda _: True)
COUNT = whole(0, 2**53)  # what JSON holds exactly
FINITE = Kind('a finite number', _is_finite)
NUMBER = Kind('a number', lambda v: _is_finite(v) and abs(v) < 2**53)  # of pixels, say
TEXT = Kind('text', lambda v: isinstance(v, str) and not any('\ud800' <= c <= '\udfff' for c in v))
ID = Kind('a number or text', lambda v: NUMBER.matches(v) or TEXT.matches(v))
DICT = Kind('a dict', lambda v: isinstance(v, Mapping))
LIST = Kind('a list', lambda v: isinstance(v, (list, tuple)))


def optional(kind: Kind) -> Kind:
    """A kind of value, or None."""
    return Kind(f'{kind.name} or None', lambda v: v is None or kind.matches(v))


def require(value: Any, schema: Any, where: str) -> None:
    """Compare what was read with a schema.

    Args:
        value (Any): What was read.
        schema (Any): What it has to be.
        where (str): What to call it in errors: the file, or the part of it.

    Raises:
        ValueError: For the first thing that differs: where, what it is, and what it has to be.
    """
    problem = find_problem(value, schema)
    if problem:
        raise UserValueError(f'{where}{problem if problem.startswith(" ") else ": " + problem}')


def find_problem(value: Any, schema: Any) -> str | None:
    """What :func:`require` says after the name; None if the value is what it has to be."""
    path = []  # of keys, from the inside out: nothing is put together while all is well
    problem = _find(value, schema, path)
    if problem is None:
        return None
    inside = ''.join(
        f'[{key}]' if isinstance(key, int) else f'.{shown(key, 40)}' for key in reversed(path)
    )
    return f'{inside.lstrip(".")} {problem}'


def parse_json(text: str | bytes, what: str) -> Any:
    """Read JSON of somebody else.

    Args:
        text (str or bytes): All of it, as UTF-8.
        what (str): What to call it in errors.

    Raises:
        ValueError: If it is none, or nested so deep that Python cannot read it.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = 'nested too deep' if isinstance(error, RecursionError) else shown(error)
        raise UserValueError(f'{what} is no JSON, or it is truncated: {reason}') from error


def read_json(path: str | Path, what: str = '') -> Any:
    """Read a JSON file of somebody else.

    Args:
        path (str or Path): The file.
        what (str): What to call it in errors, before its path.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is no file, or holds no JSON.
    """
    with open_regular(path, what) as file:
        return parse_json(file.read(), f'{what} {path}'.strip())


def _find(value: Any, schema: Any, path: list) -> str | None:
    """What is wrong, and where."""
    if isinstance(schema, Kind):
        if schema.matches(value):
            return None
        return f'is {shown(value, 60)}, but has to be {schema.name}'
    kind = LIST if isinstance(schema, list) else DICT
    if not kind.matches(value):
        return f'is {shown(value, 60)}, but has to be {kind.name}'
    if isinstance(schema, list):
        children = ((index, child, schema[0]) for index, child in enumerate(value))
    elif isinstance(schema, Each):
        children = ((key, child, schema.schema) for key, child in value.items())
    else:
        missing = next((k for k in schema if not k.endswith('?') and k not in value), None)
        if missing is not None:
            return f'has no {missing}'
        names = ((key.removesuffix('?'), part) for key, part in schema.items())
        children = ((name, value[name], part) for name, part in names if name in value)
    for key, child, part in children:
        if isinstance(schema, Each) and not (isinstance(key, str) and key.isprintable()):
            return f'has the key {shown(key, 60)}, but keys have to be text that can be printed'
        problem = _find(child, part, path)
        if problem:
            path.append(key)
            return problem
    return None
