"""What the Triton kernels are compiled to. A compiler needs no GPU."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from lesa_mmdet.attention import support

from helpers.paths import ROOT
from patches.cached import cached

OLDEST = '.'.join(map(str, support.OLDEST_TRITON))
triton = pytest.importorskip('triton', OLDEST, reason=f'no Triton {OLDEST} or newer is installed')

OLDEST_ROOT = Path(sys.prefix) / 'oldest-triton'  # where `make test` puts it
GPUS = ('8.0', '9.0', '10.0')  # compute capabilities; 8.9 has the entries of 8.0
SCRIPT = 'benchmarks/kernels.py'
DEPENDS_ON = [
    ROOT / SCRIPT,
    ROOT / 'requirements' / 'oldest-triton.txt',
    *(ROOT / 'lesa_mmdet' / 'attention').rglob('*.py'),
]


@pytest.fixture
def compiled(run, tmp_path):
    """Compile the kernels with these arguments, and tell what `benchmarks/kernels.py` found."""

    def compile_kernels(*args, **env):
        path = tmp_path / 'kernels.json'
        forked = 'PYTHONPATH' not in env  # another Triton comes first only in a process of its own
        run(SCRIPT, *args, '--json', path, forked=forked, TRITON_CACHE_DIR=str(tmp_path), **env)
        return json.loads(path.read_text(encoding='utf-8'))['records']

    def compile_once(*args, **env):
        oldest = 'PYTHONPATH' in env
        name = re.sub(r'\W+', '-', ' '.join(['kernels', *args, *['oldest'] * oldest]))
        versions = (triton.__version__, torch.__version__)
        return cached(name, DEPENDS_ON, versions, lambda: compile_kernels(*args, **env))

    return compile_once


# Instructions of a thread for a tile of 64 x 64 keys and queries on Hopper, which is what bounds
# the kernels: at most so many, with Triton 3.7 and 3.8.
INSTRUCTIONS = {
    '16/32': dict(forward=281, backward_queries=309, backward_keys=361),
    '32/64': dict(forward=313, backward_queries=322, backward_keys=394),
    '64/128': dict(forward=358, backward_queries=356, backward_keys=423),
}


# Bytes of a thread's registers that lie in memory, at most; in one entry Triton 3.8 spills 144,
# 3.7 spills 96. Without the step that is loaded ahead none would, but nothing would hide reads.
STACK = 128
STACK_OF = {('10.0', '64/128', 'backward_queries'): 144}


def assert_fits(record):
    """Hardly a register in memory, matrix units for 16 bits, and reads of 16 bytes at once."""
    entry = record['capability'], record['channels'], record['kernel']
    assert record['stack'] <= STACK_OF.get(entry, STACK), record
    assert record['wide_reads'], record
    assert not record['serialized'], record  # Hopper's products run while a thread goes on
    multiplies = record['dtype'] != 'float32' and '/' in record['channels']
    units = {'9.0': 'wgmma', '10.0': 'tcgen05'}.get(record['capability'], 'mma')
    assert record['units'] == (units if multiplies else 'none'), record


@pytest.mark.slow
def test_every_entry_of_the_tables_fits_every_gpu(compiled):
    records = compiled('--capability', *GPUS, '--dtype', 'bfloat16')
    assert len(records) == len(GPUS) * 5 * 3
    for record in records:
        assert_fits(record)
        if record['capability'] == '9.0' and record['channels'] in INSTRUCTIONS:
            most = INSTRUCTIONS[record['channels']][record['kernel']]
            assert 32 * record['instructions'] <= most, record


@pytest.mark.slow
def test_the_oldest_triton_that_is_accepted(compiled):
    if not (OLDEST_ROOT / 'triton').is_dir():
        pytest.skip(f'no older Triton in {OLDEST_ROOT}: run make test')
    args = ('--capability', *GPUS, '--dtype', 'float16', '--channels', '16/32', '64/128', '128/128')
    path = os.pathsep.join([str(OLDEST_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    records = compiled(*args, PYTHONPATH=path)
    assert len(records) == len(GPUS) * 3 * 3
    for record in records:
        # Its compiler lets the products of the keys' gradients wait for each other on Hopper.
        assert_fits({**record, 'serialized': False})


def test_kernels_without_matrix_units_fit_a_gpu(compiled):
    args = ('--dtype', 'float32', '--channels', '16/32', '64/128', '32')
    records = compiled('--capability', '8.0', '9.0', *args)
    assert len(records) == 2 * 3 * 3
    for record in records:
        assert_fits(record)


def test_sizes_that_tiles_do_not_divide(compiled):
    args = ('--capability', '8.9', '9.0', '--dtype', 'float16', '--channels', '16/32')
    for record in compiled(*args, '--size', '25', '42'):
        assert_fits(record)


def test_the_oldest_triton_of_the_tests_is_the_oldest_that_is_accepted():
    file = ROOT / 'requirements' / 'oldest-triton.txt'
    version = re.search(r'triton==(\d+)\.(\d+)', file.read_text(encoding='utf-8')).groups()
    assert tuple(map(int, version)) == support.OLDEST_TRITON
