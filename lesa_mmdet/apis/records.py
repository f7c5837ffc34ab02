"""What is done, on disk: results of images and videos, from which an interrupted run goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from mmengine.fileio import dump

from ..utils.errors import UserValueError
from ..utils.images import IMAGE_SUFFIXES
from ..utils.paths import is_url

VIDEO_SUFFIXES = frozenset(
    '.3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv'.split()
)


class Records:
    """What is done, in a file to which each image or video adds a line when it is finished.

    Args:
        folder (Path): Output folder.
        settings (dict): What results depend on. Those of other settings are not mixed with these.

    Raises:
        ValueError: If the folder has results of other settings.
    """

    def __init__(self, folder: Path, settings: dict) -> None:
        self.folder, self._path = folder, folder / 'records.jsonl'
        self._done = {}
        folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._path.write_text(json.dumps(settings) + '\n', encoding='utf-8')
        content = self._path.read_bytes()
        whole = content[: content.rfind(b'\n') + 1]  # a run was killed while it wrote the rest
        try:
            first, *entries = map(json.loads, whole.splitlines() or [b'{}'])
        except ValueError as error:
            raise UserValueError(f'{self._path} is broken: delete it to start over') from error
        other = [key for key in settings if first.get(key) != settings[key]]
        if other:
            raise UserValueError(
                f'{folder} has results of another {" and ".join(other)}: name another folder, '
                'or delete this one to start over'
            )
        if len(whole) < len(content):
            with self._path.open('r+b') as file:
                file.truncate(len(whole))
        for entry in entries:
            self._done[entry['source']] = entry

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
        taken = {entry['name'] for entry in self._done.values()}
        name, number = path.stem + suffix, 1
        while name in taken:
            number += 1
            name = f'{path.stem}_{number}{suffix}'
        return name

    def drawing(self, name: str) -> Path:
        """Where a drawing is."""
        return self.folder / 'vis' / name

    def add(self, source: str, name: str, images: Sequence[dict]) -> None:
        """Note that a source is done.

        Args:
            source (str): Image or video.
            name (str): Name of its drawing, which has been written.
            images (Sequence[dict]): The image, or the frames, with ``file_name``, ``height``,
                ``width`` and ``results``.
        """
        entry = dict(source=_key(source), stamp=stamp(source), name=name, images=list(images))
        self._done[entry['source']] = entry
        with self._path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(entry) + '\n')

    def write_results(self, categories: Sequence[dict]) -> None:
        """Write ``predictions.json`` and ``images.json`` of all that is done.

        The id of an image is the number that its name is, as those of COCO's images are, if
        no other has it. The rest are counted on.
        """
        images = [image for entry in self._done.values() for image in entry['images']]
        ids = [Path(image['file_name']).stem for image in images]
        numbers = {}
        for index, name in enumerate(ids):
            if name.isascii() and name.isdigit():
                numbers.setdefault(int(name), index)
        of_index = {index: number for number, index in numbers.items()}
        free = max(numbers, default=0) + 1
        listed, predictions = [], []
        for index, image in enumerate(images):
            if index not in of_index:
                of_index[index], free = free, free + 1
            listed.append(dict(id=of_index[index], **image))
            results = listed[-1].pop('results')
            predictions += [dict(image_id=of_index[index], **result) for result in results]
        dump(predictions, self.folder / 'predictions.json')
        dataset = dict(images=listed, annotations=[], categories=list(categories))
        dump(dataset, self.folder / 'images.json')


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
