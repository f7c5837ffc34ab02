"""Finding and reading images."""

import os
from collections.abc import Collection, Iterable
from glob import glob, has_magic
from pathlib import Path

import cv2
import mmcv
import numpy as np

from .errors import UserFileNotFoundError, UserValueError
from .paths import is_url

IMAGE_SUFFIXES = frozenset(('.bmp', '.jpeg', '.jpg', '.png', '.webp'))


def find_images(
    sources: Iterable[str | Path], suffixes: Collection[str] = IMAGE_SUFFIXES
) -> list[str]:
    """List the images that files, folders, patterns and URLs stand for.

    Args:
        sources (Iterable[str | Path]): Files, folders, patterns such as ``'photos/**/*.jpg'``,
            and URLs. A folder stands for the files in it, without those of its subfolders.
        suffixes (Collection[str]): Lower-case suffixes of the files that are taken from a folder.

    Returns:
        list[str]: Paths and URLs in the order of the sources; those of a folder or pattern by name.

    Raises:
        FileNotFoundError: If a source does not exist, or a folder or pattern has no image.
    """
    images = []
    for source in map(os.path.expanduser, map(str, sources)):
        path = Path(source)
        if is_url(source) or path.is_file():
            images.append(source)
        elif path.is_dir():
            found = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in suffixes)
            if not found:
                raise UserFileNotFoundError(
                    f'folder {source} has no image ({", ".join(sorted(suffixes))})'
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


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file, or the image at a URL, as uint8 (H, W, 3), RGB.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no image, or the URL cannot be fetched.
    """
    path = os.path.expanduser(path)
    if not is_url(path) and not Path(path).is_file():
        raise UserFileNotFoundError(f'image {path} does not exist')
    try:
        return mmcv.imread(path, channel_order='rgb')
    except cv2.error as error:
        raise UserValueError(f'image {path} cannot be read: it is no image, or broken') from error
    except OSError as error:
        raise UserValueError(f'image {path} cannot be read: {error}') from error
