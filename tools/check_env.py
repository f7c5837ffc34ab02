"""Check that this Python can run the project: what an existing environment has to bring."""

import os
import platform
import sys
from argparse import ArgumentParser
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

NEEDED = {
    'torch': 'pip install torch',
    'mmcv.ops': 'mmcv with its operators (formerly mmcv-full): tools/build_mmcv.sh PYTHON 2.1.0',
    'mmdet': 'pip install mmdet==3.3.0',
    'cv2': 'pip install opencv-python-headless',
    'einops': 'pip install einops',
    'onnx': 'pip install onnx',
    'onnxscript': 'pip install onnxscript',
    'pycocotools': 'pip install pycocotools',
    'hypothesis': 'pip install hypothesis',
    'pytest': 'pip install pytest',
    'ruff': 'pip install ruff',
    'lesa_mmdet': 'pip install --no-build-isolation --no-deps -e .',
}

# Reported beside what mmdet collects, those of either stack.
PACKAGES = ('lesa_mmdet', 'mmcv', 'mmpretrain', 'onedl-mmcv', 'einops', 'numpy', 'triton')
TOO_LONG = ('PyTorch compiling details', 'numpy_random_seed')


def main() -> None:
    parser = ArgumentParser(description=__doc__)
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
    missing = []
    for module, remedy in NEEDED.items():
        try:
            import_module(module)
        except Exception as error:
            missing.append(f'  {module}: {error} -> {remedy}')
    if missing:
        sys.exit('\n'.join([f'{sys.executable} lacks:', *missing]))
    print(f'{sys.executable} has all that is needed')


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

    passed = True
    for device in devices:
        print(f'\n{device_name(device)}: errors relative to the largest number\n{self_test.HEADER}')
        for result in self_test.run(device):
            print(result, flush=True)
            passed &= result.passed
    return passed


def device_name(device) -> str:
    """What a device is called."""
    import torch

    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f'CPU {platform.processor() or platform.machine()}, {capability}'


def print_versions() -> None:
    """Print system, devices and versions, also where something cannot be imported."""
    try:
        from mmdet.utils import collect_env

        facts = collect_env()
    except Exception as error:
        facts = {'mmdet': f'cannot be imported: {error}', 'Python': sys.version}
    facts = {key: fact for key, fact in facts.items() if key not in TOO_LONG}
    facts['system'] = platform.platform()
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    print('\n'.join(f'{name}: {fact}' for name, fact in facts.items()))


if __name__ == '__main__':
    main()
