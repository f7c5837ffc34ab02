"""Results that take a minute and depend on files alone: computed once for each state of them."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from helpers.paths import ROOT
from patches import PLAIN

FOLDER = ROOT / 'build' / 'tests'

Result = TypeVar('Result')


def cached(
    name: str, files: Iterable[Path], versions: Iterable[str], make: Callable[[], Result]
) -> Result:
    """What ``make`` returns, from its last call if nothing has changed that it depends on.

    Args:
        name (str): What it is, in a word.
        files (Iterable[Path]): Files that it depends on, this one's caller among them.
        versions (Iterable[str]): Versions of packages that it depends on.
        make (Callable): Returns what JSON can hold.
    """
    if PLAIN:
        return json.loads(json.dumps(make()))
    digest = hashlib.sha256(repr(list(versions)).encode())
    for file in sorted(files):
        digest.update(f'\n{file.relative_to(ROOT)}\n'.encode() + file.read_bytes())
    path = FOLDER / f'{name}@{digest.hexdigest()[:16]}.json'
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / f'{name}.lock'):  # workers wait for the first
        if not path.is_file():
            text = json.dumps(make())
            for old in FOLDER.glob(f'{name}@*.json'):
                old.unlink()
            path.write_text(text, encoding='utf-8')
    return json.loads(path.read_text(encoding='utf-8'))
