"""Where the configs are, for projects that build on them."""

from difflib import get_close_matches
from pathlib import Path

_PACKAGE = Path(__file__).parent
# In an installed package the configs lie where mmdet has its own; in a checkout beside the package.
_INSTALLED = _PACKAGE / '.mim' / 'configs'
CONFIG_ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / 'configs'


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
