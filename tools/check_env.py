"""Check that this Python can run the project: what an environment of one's own has to bring."""

import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

# Of both stacks; either brings the modules mmcv, mmengine and mmdet.
STACKS = ('mmcv', 'mmcv-lite', 'mmengine', 'mmdet')
STACKS += ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection')
A_STACK = (
    "OpenMMLab's: pip install -r requirements/openmmlab.txt ./mmcv_torchvision, "
    "or OneDL's: pip install --no-cache-dir -r requirements/onedl.txt ./mmcv_torchvision"
)
# What is imported, and where to get it.
PROJECT = {
    'torch': 'pip install torch torchvision',
    'mmcv.version': A_STACK,  # needs no operators
    'mmcv.ops': 'pip install ./mmcv_torchvision',
    'mmdet.apis': A_STACK,
    'cv2': 'pip install opencv-python-headless',
    'einops': 'pip install einops',
    'matplotlib': 'pip install matplotlib',
    'pycocotools': 'pip install pycocotools',
    'lesa_mmdet': 'pip install --no-deps -e .',
}
# What fails with another, for the same reason.
BUILT_ON = {'mmcv.ops': 'mmcv.version', 'mmdet.apis': 'mmcv.ops', 'lesa_mmdet': 'mmdet.apis'}
TESTS = dict.fromkeys(
    ('hypothesis', 'onnx', 'onnxscript', 'pyrefly', 'pytest', 'ruff', 'xdist'),
    'pip install -r requirements/tests.txt',
)
# Reported in addition to what mmdet collects; those of either stack.
PACKAGES = ('lesa_mmdet', *STACKS, 'mmcv-torchvision', 'torchvision', 'mmpretrain')
PACKAGES += ('onedl-mmpretrain', 'einops', 'numpy', 'triton')
TOO_LONG = ('PyTorch compiling details', 'numpy_random_seed')


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('--tests', action='store_true', help='and what make test needs')
    parser.add_argument(
        '--self-test',
        action='store_true',
        help='compare the backends of attention with the definition',
    )
    parser.add_argument(
        '--report',
        action='store_true',
        help='likewise, after versions and devices: what an issue needs',
    )
    args = parser.parse_args()
    if args.report or args.self_test:
        interpret_triton()
        if args.report:
            print_versions()
        if not self_test():
            sys.exit('a backend does not compute what the definition says, see WRONG and FAILED')
        return
    problems = check_modules({**PROJECT, **(TESTS if args.tests else {})})
    if not problems and (problem := without_cuda()):
        problems.append(f'  {problem}')
    if problems:
        sys.exit('\n'.join([f'{sys.executable} cannot run this project:', *problems]))
    found = {'Python': platform.python_version(), **versions(['torch', *STACKS])}
    about = ', '.join(f'{name} {number}' for name, number in found.items())
    print(f'{sys.executable} has all that is needed: {about}; operators: {operators()}')

    from lesa_mmdet.utils.devices import unused_gpu

    if problem := unused_gpu():
        print(f'warning: {problem}')


def operators() -> str:
    """Whose operators mmcv has, and the CUDA that they were compiled with."""
    import mmcv._ext as ext

    # The compiled module has a file of its own, torchvision's operators a line of Python.
    if ext.__file__.endswith('.py'):
        whose = f"torchvision's, {versions(['torchvision'])['torchvision']}"
    else:
        whose = f"mmcv's own, compiled with {ext.get_compiler_version()}"
    return f'{whose}, CUDA {ext.get_compiling_cuda_version()}'


def without_cuda() -> str | None:
    """What to do about operators that cannot run on the GPU that torch uses."""
    import mmcv._ext as ext
    import torch

    if not torch.cuda.is_available() or ext.get_compiling_cuda_version() != 'not available':
        return None
    if ext.__file__.endswith('.py'):
        remedy = 'pip install --force-reinstall --no-cache-dir torch torchvision, from one index'
    else:
        remedy = f'pip uninstall mmcv mmcv-lite onedl-mmcv, then {A_STACK}'
    return f'the operators ({operators()}) are for CPUs, but torch uses a GPU -> {remedy}'


def check_modules(modules: dict[str, str]) -> list[str]:
    """What cannot be imported, why, and what to do about it."""
    problems = {}
    for module, remedy in modules.items():
        if BUILT_ON.get(module) in problems:
            problems[module] = ''
            continue
        try:
            import_module(module)
        except ImportError as error:
            says_it_itself = 'pip ' in str(error)
            problems[module] = f'  {module}: {error}' + ('' if says_it_itself else f' -> {remedy}')
        except Exception as error:  # nothing that installing it would mend
            text = str(error).partition('\n')[0]
            problems[module] = (
                f'  {module}: is installed, but fails: {type(error).__name__}: {text}'
            )
    return list(filter(None, problems.values()))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def interpret_triton() -> None:
    """Let Triton's kernels run without a GPU: to be said before anything of it is imported."""
    import torch

    if not torch.cuda.is_available() and find_spec('triton'):
        os.environ.setdefault('TRITON_INTERPRET', '1')


def self_test() -> bool:
    """Whether every backend computes what the definition says, on all devices there are."""
    import torch

    devices = [torch.device('cpu')]
    if torch.cuda.is_available():
        devices.append(torch.device('cuda'))

    from lesa_mmdet.attention import self_test
    from lesa_mmdet.utils.devices import device_name

    passed = True
    for device in devices:
        print(f'\n{device_name(device)}: errors relative to the largest number\n{self_test.HEADER}')
        for result in self_test.run(device):
            print(result, flush=True)
            passed &= result.passed
    return passed


def describe_devices() -> dict[str, str]:
    """Operators and GPUs, as far as they can be asked."""
    try:
        import torch

        from lesa_mmdet.utils.devices import unused_gpu

        facts = {'operators': operators(), 'GPU that is not used': unused_gpu() or 'none'}
        if torch.cuda.is_available():
            gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
            facts['GPUs'] = ', '.join(f'{gpu.name} {gpu.major}.{gpu.minor}' for gpu in gpus)
        return facts
    except Exception as error:
        return {'operators': f'cannot be asked: {error}'}


def print_versions() -> None:
    """Print system, devices and versions, also where something cannot be imported."""
    try:
        from mmdet.utils import collect_env

        facts = collect_env()
    except Exception as error:
        facts = {'mmdet': f'cannot be imported: {error}', 'Python': sys.version}
    facts = {key: fact for key, fact in facts.items() if key not in TOO_LONG}
    facts['system'] = platform.platform()
    facts.update(versions(PACKAGES))
    facts.update(describe_devices())
    print('\n'.join(f'{name}: {fact}' for name, fact in facts.items()))


if __name__ == '__main__':
    main()
