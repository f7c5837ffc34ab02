"""Where checkpoints come from: every name that mmengine knows ends in the same safe reading.

mmengine's own loaders call ``torch.load`` each in its way, and some let a file run code: those of
URLs on every version of torch, all of them before 2.6, and OneDL's as their second attempt.
"""

import os
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from ..utils.errors import UserValueError
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
    """Load from a URL. The file is kept where torch keeps what it downloads."""
    name = os.path.basename(urlparse(filename).path)
    path = os.path.join(torch.hub.get_dir(), 'checkpoints', name)
    if get_rank() == 0:
        _download(filename, path)
    barrier()
    _download(filename, path)  # on machines without the first process
    return read_checkpoint(path, map_location)


def _download(url: str, path: str) -> None:
    """Download a file, unless it is there."""
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, path, progress=os.isatty(2))
    except URLError as error:
        raise UserValueError(
            f'checkpoint {url} cannot be downloaded ({error}): without a connection, download it '
            f'elsewhere and put it to {path}, or name the file'
        ) from error


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
