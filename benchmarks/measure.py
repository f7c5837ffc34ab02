"""Time and peak memory of one case, in a process of its own so that the peak is that case's."""

import json
import multiprocessing
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Callable, Optional

import torch
from torch.utils.benchmark import Timer

from lesa_mmdet.analysis.curves import PICTURES
from lesa_mmdet.preflight import check_output

RSS_UNIT = 1 if sys.platform == 'darwin' else 1024  # bytes in a unit of ru_maxrss


def machine(device: str) -> dict:
    """What the figures depend on."""
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        cpuinfo = Path('/proc/cpuinfo')
        lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
        names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
        name = f'{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads'
    load = os.getloadavg()[0]
    return dict(name=name, torch=torch.__version__, system=platform.platform(), load=round(load, 1))


def ratios(result: dict, base: dict) -> str:
    """How many times the time and memory of ``base`` a result takes."""
    return (
        f'{result["seconds"] / base["seconds"]:5.2f} x time '
        f'{result["mib"] / base["mib"]:5.2f} x memory'
    )


def save(path: Optional[str], about: dict, records: list[dict]) -> None:
    """Write all figures as JSON, if a file is named."""
    if path:
        Path(path).write_text(json.dumps(dict(machine=about, records=records), indent=1))


def check_outputs(json_file: Optional[str], plot: Optional[str] = None) -> None:
    """Check that the files that are named can be written, before hours are measured."""
    if json_file:
        check_output(json_file, '--json', ('.json',))
    if plot:
        check_output(plot, '--plot', PICTURES)


def in_own_process(case: Callable, *args) -> dict:
    """What ``case(*args)`` returns, called in a fresh process; ``{'error': ...}`` if it fails."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, case, args))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        result = dict(error=f'ended with exit code {process.exitcode} (-9: out of memory)')
    process.join()
    return result


def _send(sender, case, args) -> None:
    try:
        result = case(*args)
    except (MemoryError, RuntimeError, ValueError) as error:
        result = dict(error=str(error).splitlines()[0])
    sender.send(result)


class Meter:
    """Measures steps on a device. To be made before anything else: what is there is not counted.

    Peak memory is, on a GPU, the most that PyTorch held at once; on a CPU, the largest resident
    set of the process less what it was when the meter was made.

    Args:
        device (str): 'cpu' or 'cuda'.
        seconds (float): How long to repeat a step at least. It is run three times at least.
    """

    def __init__(self, device: str, seconds: float) -> None:
        self.device = device
        self.seconds = seconds
        self.before = self._peak() if device == 'cpu' else 0

    def __call__(self, step: Callable[[], None]) -> dict:
        """Seconds of the fastest run, and peak memory in MiB since the meter was made."""
        timer = Timer('step()', globals=dict(step=step), num_threads=torch.get_num_threads())
        seconds = min(timer.blocked_autorange(min_run_time=self.seconds).times)
        return dict(seconds=seconds, mib=(self._peak() - self.before) / 2**20)

    def _peak(self) -> int:
        if self.device == 'cuda':
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def memory_of(device: str) -> int:
    """Bytes of memory that a device has."""
    if device == 'cuda':
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
