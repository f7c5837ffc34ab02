"""Time and peak memory of one case, in a process of its own so that the peak is that case's.

What a benchmark measures is data: it is written to ``results/MACHINE/NAME.json``, from which
``report.py`` renders the tables of the documentation.
"""

import datetime
import json
import multiprocessing
import os
import platform
import re
import resource
import subprocess
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401 (by every optimizer: not what is measured)
from torch.utils.benchmark import Timer

from lesa_mmdet.utils.paths import check_output
from lesa_mmdet.visualization.curves import PICTURES

RESULTS = Path(__file__).with_name('results')
RSS_UNIT = 1 if sys.platform == 'darwin' else 1024  # bytes in a unit of ru_maxrss


def make_parser(description: str | None, seconds: float = 5) -> ArgumentParser:
    """A parser of the options of all comparisons: ``--device``, ``--seconds``, ``--json``."""
    parser = ArgumentParser(description=(description or '').partition('\n')[0])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--seconds', type=float, default=seconds, help='time to repeat each step for'
    )
    add_json(parser)
    return parser


def add_json(parser: ArgumentParser) -> None:
    """Add ``--json``, where the figures go."""
    parser.add_argument('--json', help='file for all figures, instead of results/MACHINE/NAME.json')


def announce(device: str) -> dict:
    """Print what the figures depend on, and return it."""
    about = machine(device)
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    return about


def machine(device: str) -> dict:
    """What the figures depend on."""
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        cpuinfo = Path('/proc/cpuinfo')
        lines = cpuinfo.read_text(encoding='utf-8').splitlines() if cpuinfo.is_file() else []
        names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
        name = f'{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads'
    return dict(
        name=name,
        instructions=torch.backends.cpu.get_cpu_capability() if device == 'cpu' else 'CUDA',
        torch=torch.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        load=round(os.getloadavg()[0], 1),
    )


def ratios(result: dict, base: dict) -> str:
    """How many times the time and memory of ``base`` a result takes."""
    names = dict(seconds='time', mib='memory', processor_seconds='processor time')
    return ' '.join(
        f'{result[key] / base[key]:5.2f} x {name}' for key, name in names.items() if key in base
    )


def save(path: str | None, name: str, about: dict, records: list[dict]) -> None:
    """Write all figures as JSON, with what they depend on.

    Args:
        path (str, optional): The file; by default ``results/MACHINE/NAME.json``.
        name (str): What was measured, in a word.
        about (dict): The machine, of :func:`announce`.
        records (list[dict]): The figures.
    """
    folder = '-'.join(str(about[key]) for key in ('name', 'instructions') if key in about)
    slug = re.sub(r'[^a-z0-9.]+', '-', re.sub(r'\((R|TM)\)', '', folder).lower()).strip('-')
    file = Path(path) if path else RESULTS / slug / f'{name}.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    head = dict(
        machine=about,
        commit=find_commit(),
        date=datetime.date.today().isoformat(),
        command=' '.join(['python', *sys.argv]),
    )
    file.write_text(json.dumps({**head, 'records': records}, indent=1) + '\n', encoding='utf-8')
    print(f'\n{file}')


def find_commit() -> str:
    """The commit that is measured, with a + if its code differs; 'unknown' outside of git."""
    name = _git('rev-parse', '--short', 'HEAD')
    differs = _git('status', '--porcelain', '--', ':/*.py')
    return f'{name}{"+" if differs else ""}' if name else 'unknown'


def _git(*command: str) -> str:
    at = ['git', '-C', str(Path(__file__).parent)]
    return subprocess.run([*at, *command], capture_output=True, encoding='utf-8').stdout.strip()


def check_outputs(json_file: str | None, plot: str | None = None) -> None:
    """Check that the files that are named can be written, before hours are measured."""
    if json_file:
        check_output(json_file, '--json', ('.json',))
    if plot:
        check_output(plot, '--plot', PICTURES)


def compare(cases: Mapping[str, tuple], figures: Callable[[dict], str]) -> dict[str, dict]:
    """Measure cases, each in a process of its own, and print each with its ratio to the first.

    Args:
        cases (Mapping[str, tuple]): A function and its arguments, by name.
        figures (Callable): What to print of a result.

    Returns:
        dict[str, dict]: The results by name; ``{'error': ...}`` of a case that fails.
    """
    results, base, width = {}, None, max(map(len, cases))
    for name, case in cases.items():
        result = results[name] = in_own_process(*case)
        if 'error' in result:
            print(f'  {name:<{width}} {result["error"]}', flush=True)
            continue
        base = base or result
        print(f'  {name:<{width}} {figures(result)}  {ratios(result, base)}', flush=True)
    return results


def in_own_process(case: Callable, *args) -> dict:
    """What ``case(*args)`` returns, called in a fresh process; ``{'error': ...}`` if it fails.

    Random numbers are the same in each.
    """
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
    except BaseException:  # a signal; while the process imports, it does not see that we end
        process.kill()
        raise
    process.join()
    return result


def fastest(result: dict, other: dict) -> dict:
    """The smaller of each two numbers of results with the same keys, or the one that failed."""
    for failed in (result, other):
        if 'error' in failed:
            return failed
    return {
        key: fastest(value, other[key]) if isinstance(value, dict) else min(value, other[key])
        for key, value in result.items()
    }


def end_with_parent() -> None:
    """End this process when the one that has started it ends, however it does."""

    def wait_and_end() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def _send(sender, case, args) -> None:
    end_with_parent()
    torch.manual_seed(0)
    keep_freed_memory()
    try:
        result = case(*args)
    except (MemoryError, RuntimeError, ValueError) as error:
        result = dict(error=str(error).splitlines()[0])
    sender.send(result)


def keep_freed_memory() -> None:
    """Let the allocator keep small blocks when they are freed, as it does during a training.

    Until glibc has seen a large block freed (32 MiB count as small from then on), it gives blocks
    back to the system, which clears every page when they are taken anew.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


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


def measure_training(device: str, seconds: float, build: Callable, *args) -> dict:
    """Measure the step of a training, in this process: forward, losses, backward, optimizer.

    Args:
        device (str): 'cpu' or 'cuda'.
        seconds (float): How long to repeat it at least.
        build (Callable): Takes ``args`` and the device; returns the optimizer and a function that
            computes the loss.
        *args: What to build.
    """
    meter = Meter(device, seconds)
    optimizer, compute_loss = build(*args, device)

    def step() -> None:
        compute_loss().backward()
        optimizer.step()
        optimizer.zero_grad()  # as mmengine does: a forward pass finds no gradients in memory

    return meter(step)


def memory_of(device: str) -> int:
    """Bytes of memory that a device has."""
    if device == 'cuda':
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
