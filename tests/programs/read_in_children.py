"""Reads checkpoint files in child processes and prints, as JSON, what came of each.

Usage: read_in_children.py FOLDER, in a folder where a pickle that is executed may leave its mark.
"""

import json
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from lesa_mmdet.checkpoints.files import read_checkpoint

BATCH = 50  # files a child: what damages memory shows soon
SPARE_MEMORY = 512 << 20
SECONDS = 10
EXECUTES = (
    'os.system',
    'os.exec',
    'os.posix_spawn',
    'os.fork',
    'subprocess.Popen',
    'socket.connect',
)


def main() -> None:
    files = sorted(Path(sys.argv[1]).iterdir())
    outcomes = {}
    while len(outcomes) < len(files):
        outcomes.update(read_batch(files[len(outcomes) :][:BATCH]))
    json.dump(outcomes, sys.stdout)


def read_under_limit(path: str, spare: int) -> None:
    """Read a file with some bytes of memory to spare; prints what came of it, and seconds."""
    limit_memory(spare)
    start = time.process_time()
    try:
        result = sorted(read_checkpoint(path, 'cpu'))
    except ValueError as error:
        result = 'refused' if 'is refused' in str(error) else str(error)
    print(json.dumps([result, time.process_time() - start]))


def limit_memory(spare: int) -> None:
    """Allow this process some bytes more than it has."""
    used = (
        int(Path('/proc/self/statm').read_text(encoding='utf-8').split()[0])
        * resource.getpagesize()
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + spare,) * 2)


def read_batch(files: list) -> dict:
    """Read files in a child, up to the one that it does not survive."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        os.close(source)
        limit_memory(SPARE_MEMORY)
        sys.addaudithook(lambda event, args: os._exit(99) if event.startswith(EXECUTES) else None)
        for file in files:
            signal.alarm(SECONDS)
            os.write(sink, f'{outcome_of(file)}\n'.encode())
        os._exit(0)
    os.close(sink)
    with os.fdopen(source) as lines:
        outcomes = lines.read().splitlines()
    status = os.waitpid(child, 0)[1]
    if status:
        died = (
            'executed' if status >> 8 == 99 else f'signal {status & 127}, exit code {status >> 8}'
        )
        outcomes.append(died)
    return dict(zip((file.name for file in files), outcomes, strict=True))


def outcome_of(file: Path) -> str:
    try:
        checkpoint = read_checkpoint(file, map_location='cpu')
    except ValueError as error:
        if 'memory' in str(error):
            return f'over memory: {error}'
        return 'refused' if 'is refused' in str(error) else 'unreadable'
    except Exception as error:
        return f'{type(error).__name__}: {error}'.splitlines()[0]
    try:
        use(checkpoint, set())
        pickle.dumps(checkpoint)
    except Exception:
        return 'read, useless'
    return 'read'


def use(node, seen: set) -> None:
    """Look at all data of a checkpoint."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Mapping):
        use(list(node.items()), seen)
        use(list(getattr(node, '__dict__', {}).values()), seen)
    elif isinstance(node, (list, tuple, set)):
        for child in list(node):
            use(child, seen)
    elif isinstance(node, torch.Tensor) and node.numel() < 1e6:
        node.clone().sum().item(), repr(node)
    elif isinstance(node, np.ndarray):
        assert node.dtype.kind in 'biufc' and node.base is None, node
        node.sum(), repr(node)
    elif isinstance(node, HistoryBuffer):
        use(node.data, seen)
        node.update(1.0)
        node.mean(), node.current()


if __name__ == '__main__':
    main()
