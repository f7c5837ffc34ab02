"""mmcv, mmengine and mmdet, of OpenMMLab or of OneDL: what keeps them from being imported."""

import sys
from importlib.metadata import PackageNotFoundError, version

import torch

# The packages of each stack, whose modules have the same names.
STACKS = {
    'OpenMMLab': ('mmcv', 'mmcv-lite', 'mmengine', 'mmdet'),
    'OneDL': ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection'),
}
# The packages that bring a module.
PACKAGES = {
    'mmcv': ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
}
INSTALL = (
    'in a checkout, pip install -r requirements/openmmlab.txt ./mmcv_torchvision installs '
    "OpenMMLab's, and pip install --no-cache-dir -r requirements/onedl.txt ./mmcv_torchvision "
    "OneDL's"
)


def refuse_both() -> None:
    """Refuse packages of both stacks, or two kinds of mmcv, which overwrite each other's files.

    mmcv and mmcv-lite of one version have the same files, but for operators.

    Raises:
        ImportError: If there are some of both, with the command that mends it.
    """
    found = [[name for name in names if _is_installed(name)] for names in STACKS.values()]
    if all(found):
        raise ImportError(
            f'{" and ".join(STACKS)} share their folders, so that their files are mixed: '
            f'pip uninstall {" ".join(sum(found, []))}, and then {INSTALL}'
        )
    kinds = {name: version(name) for name in ('mmcv', 'mmcv-lite') if _is_installed(name)}
    if len(set(kinds.values())) > 1:
        found = ' and '.join(f'{name} {number}' for name, number in kinds.items())
        raise ImportError(
            f'{found} share their folder, so that their files are mixed: '
            f'pip uninstall {" ".join(kinds)}, and then {INSTALL}'
        )


def explain(error: ImportError) -> ImportError:
    """The error that says in one sentence what is missing or does not fit, and what mends it.

    An error about anything else is returned unchanged.
    """
    top, _, rest = (error.name or '').partition('.')
    installed = list(filter(_is_installed, PACKAGES.get(top, ())))
    place = _place(top)
    if isinstance(error, ModuleNotFoundError) and installed and place and rest not in ('', '_ext'):
        return ModuleNotFoundError(
            f'{" and ".join(installed)} is installed, but Python takes {top} from {place}, '
            f'which is not all of it ({error}): rename that folder if it is not of a package, '
            f'else pip uninstall {" ".join(installed)}, and then {INSTALL}',
            name=error.name,
        )
    if isinstance(error, ModuleNotFoundError) and top in PACKAGES:
        return ModuleNotFoundError(
            f'lesa_mmdet needs mmcv with operators, mmengine and mmdet ({error}): {INSTALL}',
            name=error.name,
        )
    if (top, rest) == ('mmcv', '_ext'):
        return ImportError(
            f"mmcv's compiled operators do not fit torch {torch.__version__} ({error}): "
            f'pip uninstall {" ".join(installed) or "mmcv"}, and then {INSTALL}',
            name=error.name,
        )
    return error


def _place(module: str) -> str | None:
    """The folder that a module was imported from, or its file; None if it was not imported."""
    found = sys.modules.get(module)
    paths = list(getattr(found, '__path__', [])) or [getattr(found, '__file__', None)]
    return paths[0]


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
