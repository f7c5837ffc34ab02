"""Where the configs are, for projects that build on them, and reading them."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Optional

from mmengine.config import Config

_PACKAGE = Path(__file__).parent
# In an installed package the configs lie where mmdet has its own; in a checkout beside the package.
_INSTALLED = _PACKAGE / '.mim' / 'configs'
CONFIG_ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / 'configs'
PRETRAIN_HINT = (
    'it is an image classification config, and mmpretrain is not installed: '
    'pip install lesa_mmdet[pretrain]'
)


def config_path(name: str) -> str:
    """Path of a config of this package, for ``Config.fromfile`` or another config's ``_base_``.

    Args:
        name (str): Path below ``configs``, such as
            ``'mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'``; ``.py`` may be left out.

    Returns:
        str: Absolute path.

    Raises:
        FileNotFoundError: If there is no such config, with the names that come close.

    Example:
        >>> _base_ = __import__('lesa_mmdet').config_path('_base_/models/mask-rcnn_lesa-r50_fpn')
    """
    path = CONFIG_ROOT / f'{name.removesuffix(".py")}.py'
    if not path.is_file():
        known = [found.relative_to(CONFIG_ROOT).as_posix() for found in CONFIG_ROOT.rglob('*.py')]
        close = get_close_matches(name, known) or sorted(known)
        raise FileNotFoundError(
            f'{name} is no config in {CONFIG_ROOT}; close to it: {", ".join(close)}'
        )
    return str(path)


def load_config(path: str, cfg_options: Optional[Mapping] = None) -> Config:
    """Read a config and change it.

    Args:
        path (str): Config file.
        cfg_options (Mapping, optional): Changes, as of ``--cfg-options``.

    Raises:
        FileNotFoundError: If it does not exist, or a config in its ``_base_``.
        ValueError: If it is a classifier's and mmpretrain is not installed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist; docs/model_table.md lists all')
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{path}: a config in its _base_, or in that of one of them, does not exist: '
            f'{error.filename or error}'
        ) from error
    except ImportError as error:
        if find_spec('mmpretrain') or 'mmpretrain' not in _messages(error):
            raise
        raise ValueError(f'{path}: {PRETRAIN_HINT}') from error
    cfg.merge_from_dict(cfg_options or {})
    return cfg


def _messages(error: Optional[BaseException]) -> str:
    """What an error and those it arose from say."""
    return f'{error} {_messages(error.__context__)}' if error else ''
