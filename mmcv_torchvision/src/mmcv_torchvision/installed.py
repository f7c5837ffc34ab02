"""What is installed: what mmcv reports about its operators, and what keeps them from loading."""

from importlib.metadata import PackageNotFoundError, version

import torch


def get_compiler_version() -> str:
    """Name whose operators they are, where mmcv names its compiler."""
    return f'none, operators of torchvision {version("torchvision")}'


def get_compiling_cuda_version() -> str:
    """CUDA's version that torchvision was compiled with."""
    number = torch.ops.torchvision._cuda_version()  # 12060 stands for 12.6
    return 'not available' if number < 0 else f'{number // 1000}.{number % 1000 // 10}'


def refuse_mixed_stacks() -> None:
    """Refuse OpenMMLab's and OneDL's mmcv together, which overwrite each other's files.

    Raises:
        ImportError: If both are there, with the command that mends it.
    """
    found = [name for name in ('mmcv', 'mmcv-lite', 'onedl-mmcv') if number(name)]
    if 'onedl-mmcv' in found and len(found) > 1:
        raise ImportError(
            f'{" and ".join(found)} share the folder mmcv, so that their files are mixed: '
            f'pip uninstall {" ".join(found)}, then install one of them'
        )


def explain(error: Exception) -> str:
    """Why torchvision cannot be imported, and the command that mends it."""
    found = number('torchvision')
    why = (
        f'torchvision {found} does not fit torch {torch.__version__}' if found else 'it is missing'
    )
    return (
        f"mmcv's operators need torchvision, but {why} ({error}): "
        'pip install --force-reinstall --no-cache-dir torch torchvision, both from one index'
    )


def number(package: str) -> str | None:
    """The version of a package, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
