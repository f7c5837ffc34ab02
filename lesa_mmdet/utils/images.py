"""Finding, reading and writing images and videos.

OpenCV says by what it returns, not by an error, that it could not read or write: here it is asked.
"""

import logging
import os
from collections.abc import Collection, Iterable
from glob import glob, has_magic
from pathlib import Path
from typing import NoReturn

import cv2
import mmcv
import numpy as np
from mmengine.logging import print_log

from .errors import UserFileNotFoundError, UserTypeError, UserValueError
from .paths import is_url, require_regular
from .text import shown

IMAGE_SUFFIXES = frozenset(('.bmp', '.jpeg', '.jpg', '.png', '.webp'))


def find_images(
    sources: str | Path | Iterable[str | Path], suffixes: Collection[str] = IMAGE_SUFFIXES
) -> list[str]:
    """List the images that files, folders, patterns and URLs stand for.

    Args:
        sources (str | Path | Iterable[str | Path]): Files, folders, patterns such as
            ``'photos/**/*.jpg'``, and URLs, or one of them. A folder stands for the images in it,
            in all formats that the installed OpenCV reads, without hidden ones, as mmdet has it,
            and those of its subfolders. What else it has is counted and said.
        suffixes (Collection[str]): Lower-case suffixes of files that are taken from a folder
            whatever is in them.

    Returns:
        list[str]: Paths and URLs in the order of the sources; those of a folder or pattern by name.

    Raises:
        FileNotFoundError: If a source does not exist, or a folder or pattern has no image.
        TypeError: If a source is something else, such as an array.
    """
    is_one = isinstance(sources, (str, os.PathLike)) or not isinstance(sources, Iterable)
    images: list[str] = []
    for source in [sources] if is_one else sources:
        if not isinstance(source, (str, os.PathLike)):
            raise UserTypeError(
                f'images are named by their paths or addresses, got a {type(source).__name__}: '
                'write it to a file, or run it with mmdet.apis.inference_detector'
            )
        source = os.path.expanduser(str(source))
        path = Path(source)
        if is_url(source) or path.is_file():
            images.append(source)
        elif path.is_dir():
            found, others = _sort_out(path, suffixes)
            if not found:
                raise UserFileNotFoundError(
                    f'folder {source} has no image ({", ".join(sorted(suffixes))})'
                )
            if others:
                print_log(
                    f'folder {source}: {len(others)} of {len(others) + len(found)} are left out, '
                    f'which OpenCV does not read or which are hidden: {shown(", ".join(others))}',
                    logger='current',
                    level=logging.WARNING,
                )
            images += found
        elif has_magic(source):
            found = sorted(p for p in glob(source, recursive=True) if Path(p).is_file())
            if not found:
                raise UserFileNotFoundError(f'no file matches {source}')
            images += found
        else:
            raise UserFileNotFoundError(f'{source} is neither an image nor a folder of images')
    return images


def _sort_out(folder: Path, suffixes: Collection[str]) -> tuple[list[str], list[str]]:
    """The paths of the images in a folder, and the names of what else there is."""
    found, others = [], []
    for path in sorted(folder.iterdir()):
        is_taken = (
            path.is_file()  # a pipe would be waited for
            and not path.name.startswith('.')
            and (path.suffix.lower() in suffixes or cv2.haveImageReader(str(path)))
        )
        (found if is_taken else others).append(path)
    return list(map(str, found)), [path.name for path in others]


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file, or the image at a URL, as uint8 (H, W, 3), RGB.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no image, or the URL cannot be fetched.
    """
    path = os.path.expanduser(path)
    if not is_url(path):
        if not os.path.exists(path):
            raise UserFileNotFoundError(f'image {path} does not exist')
        require_regular(path, 'image')
    try:
        return mmcv.imread(path, channel_order='rgb')
    except cv2.error as error:
        raise UserValueError(f'image {path} cannot be read: it is no image, or broken') from error
    except OSError as error:
        raise UserValueError(f'image {path} cannot be read: {error}') from error
    except KeyError as error:
        known = 'mmengine has no file backend for such an address'
        raise UserValueError(f'image {path} cannot be read: {known}') from error


def write_image(image: np.ndarray, path: str | Path) -> None:
    """Write an image uint8 (H, W, 3), RGB, in the format that the file's name ends with.

    Raises:
        ValueError: If OpenCV cannot: of other formats, or of a size that the format does not have.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    try:
        is_encoded, content = cv2.imencode(path.suffix, mmcv.rgb2bgr(image))
    except cv2.error:  # of another format
        is_encoded, content = False, np.empty(0)
    if not is_encoded:
        height, width = image.shape[:2]
        raise UserValueError(
            f'{path} cannot be written: OpenCV makes no {path.suffix or "file"} of {width} x '
            f'{height} pixels; name another format, or scale the image down'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())


class VideoWriter:
    """Writes a video frame by frame, as MPEG-4.

    Args:
        path (str | Path): The file.
        fps (float): Frames a second, which are rounded to what MPEG-4 can say. What is no rate of
            a camera, as OpenCV has it of videos that say none, is taken for 25, with a warning.
        size (tuple[int, int]): Width and height of the frames in pixels.

    Raises:
        ValueError: If OpenCV cannot write such a video, or not whole.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]) -> None:
        self._path, self._count = Path(path), 0
        if not 0 < fps < 1000:
            print_log(
                f'video {path} gets 25 frames a second: its source says {fps:g}',
                logger='current',
                level=logging.WARNING,
            )
            fps = 25
        # Its clock has 16 bits, and OpenCV counts parts of a second in powers of ten.
        fps = max(0.01, round(fps, 2 if fps < 655 else 0))
        codec = cv2.VideoWriter.fourcc(*'mp4v')
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(str(path), codec, fps, size)
        if not self._writer.isOpened():
            self._fail(f'OpenCV makes no MPEG-4 of {size[0]} x {size[1]} pixels, {fps:g} a second')

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3), RGB."""
        self._writer.write(mmcv.rgb2bgr(frame))
        self._count += 1

    def close(self) -> None:
        """End the video, and see that it is whole.

        Raises:
            ValueError: If it is not.
        """
        self._writer.release()
        written = cv2.VideoCapture(str(self._path)).get(cv2.CAP_PROP_FRAME_COUNT)
        if written != self._count:
            self._fail(f'it has {written:.0f} of {self._count} frames; is the disk full?')

    def _fail(self, reason: str) -> NoReturn:
        self._writer.release()
        self._path.unlink(missing_ok=True)
        raise UserValueError(f'video {self._path} cannot be written: {reason}')
