"""mmcv, mmengine and mmdet, of OpenMMLab or of OneDL: what keeps them from being imported."""

from importlib.metadata import PackageNotFoundError, version

import torch

# The packages of each stack, whose modules have the same names.
STACKS = {
    'OpenMMLab': ('mmcv', 'mmcv-lite', 'mmengine', 'mmdet'),
    'OneDL': ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection'),
}
INSTALL = (
    'in a checkout, pip install -r requirements/openmmlab.txt ./mmcv_torchvision installs '
    "OpenMMLab's, and pip install --no-cache-dir -r requirements/onedl.txt ./mmcv_torchvision "
    "OneDL's"
)


def refuse_both() -> None:
    """Refuse packages of both stacks, which overwrite each other's files.

    Raises:
        ImportError: If there are some of both, with the command that mends it.
    """
    found = [[name for name in names if _is_installed(name)] for names in STACKS.values()]
    if all(found):
        raise ImportError(
            f'{" and ".join(STACKS)} share their folders, so that their files are mixed: '
            f'pip uninstall {" ".join(sum(found, []))}, and then {INSTALL}'
        )


def explain(error: ImportError) -> ImportError:
    """The error that says in one sentence what is missing or does not fit, and what mends it.

    One of anything else is returned as it is.
    """
    top, _, rest = (error.name or '').partition('.')
    if isinstance(error, ModuleNotFoundError) and top in ('mmcv', 'mmdet', 'mmengine'):
        return ModuleNotFoundError(
            f'lesa_mmdet needs mmcv with operators, mmengine and mmdet ({error}): {INSTALL}',
            name=error.name,
        )
    if (top, rest) == ('mmcv', '_ext'):
        return ImportError(
            f"mmcv's compiled operators do not fit torch {torch.__version__} ({error}): "
            f'pip uninstall mmcv onedl-mmcv, and then {INSTALL}',
            name=error.name,
        )
    return error


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
