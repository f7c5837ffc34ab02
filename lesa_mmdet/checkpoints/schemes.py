"""Where checkpoints come from: every name that mmengine knows ends in the same safe reading.

mmengine's own loaders call ``torch.load`` each in its way, and some let a file run code: those of
URLs on every version of torch, all of them before 2.6, and OneDL's as their second attempt.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse
from urllib.request import urlopen
from uuid import uuid4

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from tqdm import tqdm

from ..utils import transfer
from ..utils.errors import UserValueError
from ..utils.text import shown
from ..utils.transfer import CHUNK, read_chunks, read_length
from .atomic import UNFINISHED
from .files import read_checkpoint


def register() -> None:
    """Let mmengine read checkpoints here: to resume, for ``load_from``, ``init_cfg``, inference."""
    loaders = {
        '': load_from_local,
        'http://': load_from_http,
        'https://': load_from_http,
        'modelzoo://': load_from_torchvision,
        'torchvision://': load_from_torchvision,
        'open-mmlab://': load_from_openmmlab,
        'openmmlab://': load_from_openmmlab,
        'mmcls://': load_from_mmcls,
        r'(\S+\:)?s3://': load_from_ceph,
        r'(\S+\:)?petrel://': load_from_ceph,
    }
    for prefix in {*CheckpointLoader._schemes, *loaders}:
        loader = loaders.get(prefix, load_from_unknown)
        CheckpointLoader.register_scheme(prefix, loader, force=True)


# mmengine logs where a checkpoint comes from as `loader.__name__[10:]`: a function's name without
# 'load_from_' ('Loads checkpoint by http backend from path: ...'). So they have to begin with it.


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a file, see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Load from a URL. The file is kept in torch's folder, under a name of the whole address."""
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    name = Path(urlparse(filename).path).name[-100:]
    cached = folder / name  # as torch has it, of whatever address: only if the name proves it
    if not (_hash_in(name) and cached.is_file() and _has_hash(cached)):
        cached = folder / f'{hashlib.sha256(filename.encode()).hexdigest()[:16]}_{name}'
    failure = None
    if get_rank() == 0:
        try:
            _download(filename, cached)
        except UserValueError as error:  # others wait below, and are to know
            failure = error
    barrier()
    if failure:
        raise failure
    _download(filename, cached)  # on machines without the first process
    return read_checkpoint(cached, map_location)


def _download(url: str, path: Path) -> None:
    """Download a file atomically, unless it is there.

    Raises:
        ValueError: If the server cannot be reached, says nothing for long, or sends something else
            than it says, or than the file's name does.
    """
    if path.exists():
        return
    # A name of its own: several processes may download the same file.
    unfinished = path.with_name(f'{path.name}.{uuid4().hex}{UNFINISHED}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open('wb') as file:
            _copy(url, file)
        if not _has_hash(unfinished, path.name):
            raise OSError('its content is not that which its name has the hash of')
        os.replace(unfinished, path)
    except (OSError, HTTPException) as error:
        raise UserValueError(
            f'checkpoint {shown(url, 300)} cannot be downloaded ({shown(error, 300)}): download it '
            f'elsewhere and put it to {path}, or name the file'
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _copy(url: str, file: BinaryIO) -> None:
    """Write what is at an address to a file, all of it."""
    with urlopen(url, timeout=transfer.TIMEOUT) as answer:
        length = read_length(answer)
        if length is not None:
            if length > shutil.disk_usage(Path(file.name).parent).free:
                raise OSError(f'it has {length:,} bytes, for which the disk has no room')
        elif not answer.chunked:
            raise OSError('the server does not say how large it is')
        with tqdm(total=length, unit='B', unit_scale=True, disable=None) as bar:
            for chunk in read_chunks(answer):
                file.write(chunk)
                bar.update(len(chunk))
    if length not in (None, file.tell()):
        raise OSError(f'{file.tell():,} bytes came of {length:,}')


def _hash_in(name: str) -> str | None:
    """The first digits of the content's SHA-256, which names such as resnet50-0676ba61.pth have."""
    match = re.search(r'-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.', name)
    return match and match[1]


def _has_hash(path: Path, name: str | None = None) -> bool:
    """Whether a file's content is what a name, by default its own, says; if it says anything."""
    digits = _hash_in(name or path.name)
    if digits is None:
        return True
    with path.open('rb') as file:
        content = hashlib.sha256()
        while chunk := file.read(CHUNK):
            content.update(chunk)
    return content.hexdigest().startswith(digits)


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Load torchvision's weights of a name, ``torchvision://resnet50``."""
    urls = mmengine_checkpoint.get_torchvision_models()
    return load_from_http(_look_up(filename, urls), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Load OpenMMLab's weights of a name, ``open-mmlab://resnet50_caffe``."""
    urls = mmengine_checkpoint.get_external_models()
    names = mmengine_checkpoint.get_deprecated_model_names()
    urls = {**urls, **{old: urls[new] for old, new in names.items() if new in urls}}
    url = _look_up(filename, urls)
    if url.startswith(('http://', 'https://')):
        return load_from_http(url, map_location)
    return read_checkpoint(
        os.path.join(mmengine_checkpoint._get_mmengine_home(), url), map_location
    )


def load_from_mmcls(filename: str, map_location: Any = None) -> Any:
    """Load the backbone of a classifier of a name, ``mmcls://mobilenet_v2``."""
    url = _look_up(filename, mmengine_checkpoint.get_mmcls_models())
    checkpoint = load_from_http(url, map_location)
    return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)


def load_from_ceph(filename: str, map_location: Any = None) -> Any:
    """Load from a store that mmengine's petrel backend reaches, ``s3://bucket/file.pth``."""
    backend = get_file_backend(filename, backend_args={'backend': 'petrel'})
    with backend.get_local_path(filename) as path:
        return read_checkpoint(path, map_location)


def load_from_unknown(filename: str, map_location: Any = None) -> Any:
    """Refuse what nobody here knows how to read safely."""
    raise UserValueError(f'checkpoint {filename}: download it, and name the file')


def _look_up(filename: str, urls: Mapping[str, str]) -> str:
    """The URL of a model's name."""
    scheme, _, name = filename.partition('://')
    if name not in urls:
        raise UserValueError(f'checkpoint {filename}: {scheme} has no model {name!r}')
    return urls[name]
