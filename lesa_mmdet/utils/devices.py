"""What a training can run on: names of devices, and why torch does not use a GPU that is there."""

import os
import platform
import re
import shutil
import subprocess

import torch

LISTS = ('nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader')


def device_name(device: torch.device) -> str:
    """What a device is called."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    if device.type != 'cpu':
        return device.type
    capability = torch.backends.cpu.get_cpu_capability()
    return f'CPU {platform.processor() or platform.machine()}, {capability}'


def unused_gpu() -> str | None:
    """Why torch does not use a GPU that the driver lists, and what to install; else None.

    One that the user hides with ``CUDA_VISIBLE_DEVICES`` is not meant to be used.
    """
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    if torch.cuda.is_available() or (hidden is not None and not hidden.strip().strip('-1')):
        return None
    gpus = [line.split(',') for line in _say(*LISTS).splitlines() if ',' in line]
    if not gpus:
        return None
    names = ', '.join(dict.fromkeys(name.strip() for name, _ in gpus))
    number, driver = f'torch {torch.__version__}', gpus[0][1].strip()
    there = f'{number} does not use the GPU ({names}, driver {driver})'
    of_torch = torch.version.cuda
    if not of_torch:
        kind = "AMD's GPUs" if torch.version.hip else 'CPUs'
        return (
            f'{there}: it is a build for {kind}; pip install --force-reinstall --no-cache-dir '
            'torch torchvision --index-url https://pypi.org/simple installs one for GPUs'
        )
    of_driver = re.search(r'CUDA Version: *(\d+)\.(\d+)', _say('nvidia-smi'))
    if of_driver and int(of_driver[1]) < int(of_torch.split('.')[0]):
        has = f'{of_driver[1]}.{of_driver[2]}'
        return (
            f'{there}: it is built with CUDA {of_torch}, and this driver knows CUDA {has} at most; '
            f'install a newer driver, or torch and torchvision built with CUDA {of_driver[1]}, '
            'which https://pytorch.org/get-started/locally lists'
        )
    try:
        torch.cuda.init()
    except Exception as error:
        return f'{there}: {str(error).splitlines()[0]}'
    return f'{there}, and does not say why'


def _say(*command: str) -> str:
    """What a program prints; nothing if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ''
    try:
        result = subprocess.run(command, capture_output=True, encoding='utf-8', timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return result.stdout if result.returncode == 0 else ''
