"""What is done, on disk: results of images and videos, from which an interrupted run goes on."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from mmengine.fileio import dump
from mmengine.logging import print_log

from ..checkpoints.atomic import write_atomic
from ..utils.errors import UserValueError
from ..utils.images import IMAGE_SUFFIXES
from ..utils.paths import is_url, require_no_link, require_regular
from ..utils.schema import COUNT, DICT, Kind, optional, parse_json, require
from ..utils.text import readable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

VIDEO_SUFFIXES = frozenset(
    '.3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv'.split()
)

# A path, in which Python keeps what the system's encoding cannot decode as surrogates.
_PATH = Kind(
    'a path',
    lambda v: isinstance(v, str) and not re.search('[\ud800-\udc7f\udd00-\udfff]', v),
)
# Of a drawing: a file of the folder of drawings, and no other.
_NAME = Kind(
    'the name of a file, without a folder',
    lambda v: (
        _PATH.matches(v)
        and readable(v).isprintable()
        and v not in ('', '.', '..')
        and not re.search(r'[/\\:]', v)
    ),
)
_STAMP = Kind(
    'two numbers',
    lambda v: isinstance(v, list) and len(v) == 2 and all(type(n) is int for n in v),
)
_ENTRY = {
    'source': _PATH,
    'stamp': optional(_STAMP),
    'name': _NAME,
    'images': [{'file_name': _PATH, 'height': COUNT, 'width': COUNT, 'results': [DICT]}],
}


class Records:
    """What is done, in a file to which each image or video adds a line when it is finished.

    Args:
        folder (Path): Output folder.
        settings (dict): What results depend on. Those of other settings are not mixed with these.

    Raises:
        ValueError: If the folder has results of other settings, another process writes there, or
            the file is none of this class.
    """

    def __init__(self, folder: Path, settings: dict) -> None:
        self.folder, self._path = folder, folder / 'records.jsonl'
        self._done, self._names = {}, set()
        folder.mkdir(parents=True, exist_ok=True)
        for name in ('records.jsonl', 'predictions.json', 'images.json', 'vis'):
            require_no_link(folder / name)
        if self._path.exists():
            require_regular(self._path, 'the list of results')
        self._file = self._path.open('a+b')
        try:
            self._lock()
            self._read(settings)
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        """Keep other processes out until the file is closed."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserValueError(
                f'{self.folder} is in use by another run: wait for its end, or name another folder'
            ) from error
        except OSError as error:
            print_log(
                f'{self.folder} cannot be locked, its disk has no locks ({error.strerror}): '
                'nothing keeps another run out of it',
                logger='current',
                level=logging.WARNING,
            )

    def _read(self, settings: dict) -> None:
        """Read what is done."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b'\n') + 1]  # a run was killed while it wrote the rest
        first, *entries = map(self._parse, whole.splitlines() or [json.dumps(settings)])
        other = [key for key in settings if first.get(key) != settings[key]]
        if other:
            raise UserValueError(
                f'{self.folder} has results of another {" and ".join(other)}: name another folder, '
                'or delete this one to start over'
            )
        self._file.truncate(len(whole))
        if not whole:
            self._append(settings)
        for entry in entries:
            require(entry, _ENTRY, f'{self._path} is broken, delete it to start over: an entry')
            self._note(entry)

    def _note(self, entry: dict) -> None:
        self._done[entry['source']] = entry
        self._names.add(entry['name'])

    def _parse(self, line: bytes) -> dict:
        line = parse_json(line, f'{self._path} is broken, delete it to start over: a line')
        require(line, DICT, f'{self._path} is broken, delete it to start over: a line')
        return line

    def _append(self, entry: dict) -> None:
        self._file.write(json.dumps(entry).encode() + b'\n')
        self._file.flush()

    def close(self) -> None:
        """Let others write to the folder."""
        self._file.close()

    def has(self, source: str) -> bool:
        """Whether a source is done, has not changed since, and its drawing is there."""
        entry = self._done.get(_key(source))
        return bool(
            entry and entry['stamp'] == stamp(source) and self.drawing(entry['name']).exists()
        )

    def name(self, source: str) -> str:
        """The name of a source's drawing: its own, with a number if another source has it."""
        if _key(source) in self._done:
            return self._done[_key(source)]['name']
        path = Path(unquote(urlparse(source).path) if is_url(source) else source)
        suffix = '.mp4' if is_video(source) else path.suffix
        suffix = suffix if suffix.lower() in IMAGE_SUFFIXES | {'.mp4'} else '.png'
        name, number = path.stem + suffix, 1
        while name in self._names:
            number += 1
            name = f'{path.stem}_{number}{suffix}'
        return name

    def drawing(self, name: str) -> Path:
        """Where a drawing is.

        Raises:
            ValueError: If there is a link, which may lead out of the folder.
        """
        path = self.folder / 'vis' / name
        require_no_link(path)
        return path

    def add(self, source: str, name: str, images: Sequence[dict]) -> None:
        """Note that a source is done.

        Args:
            source (str): Image or video.
            name (str): Name of its drawing, which has been written.
            images (Sequence[dict]): The image, or the frames, with ``file_name``, ``height``,
                ``width`` and ``results``.
        """
        entry = dict(source=_key(source), stamp=stamp(source), name=name, images=list(images))
        self._note(entry)
        self._append(entry)

    def write_results(self, categories: Sequence[dict]) -> None:
        """Write ``predictions.json`` and ``images.json`` of all that is done.

        The id of an image is the number that its name is, as those of COCO's images are, if
        no other has it. The rest are counted on.
        """
        images = [image for entry in self._done.values() for image in entry['images']]
        ids = [Path(image['file_name']).stem for image in images]
        numbers = {}
        for index, name in enumerate(ids):
            if re.fullmatch('[0-9]{1,15}', name):
                numbers.setdefault(int(name), index)
        of_index = {index: number for number, index in numbers.items()}
        free = max(numbers, default=0) + 1
        listed, predictions = [], []
        for index, image in enumerate(images):
            if index not in of_index:
                of_index[index], free = free, free + 1
            listed.append({**image, 'id': of_index[index]})
            results = listed[-1].pop('results')
            predictions += [{**result, 'image_id': of_index[index]} for result in results]
        dataset = dict(images=listed, annotations=[], categories=list(categories))
        for name, content in (('predictions', predictions), ('images', dataset)):
            write_atomic(self.folder / f'{name}.json', dump(content, file_format='json').encode())


def is_video(source: str) -> bool:
    """Whether a source has the suffix of a video."""
    path = urlparse(source).path if is_url(source) else source
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _key(source: str) -> str:
    return source if is_url(source) else str(Path(source).absolute())


def stamp(path: str | Path) -> list[int] | None:
    """What tells whether a file has changed; of a URL None."""
    if is_url(path):
        return None
    status = Path(path).expanduser().stat()
    return [status.st_size, status.st_mtime_ns]
