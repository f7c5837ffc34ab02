"""Files that attack who reads them are refused or harmless, and never end the process."""

import json
import random
import subprocess
import sys
from collections import Counter

from helpers import pickles
from helpers.paths import ROOT

GENERATED, MUTATED = 1200, 600


def write_files(folder):
    """Known attacks, random trees, and a whole checkpoint with a few bytes changed."""
    source = random.Random(0)
    attacks = pickles.Attacks(source)
    known = [pickles.OBJECTS_FROM_BYTES, *pickles.DANGEROUS]
    nodes = known + [attacks.node() for _ in range(GENERATED)]
    for index, node in enumerate(nodes):
        pickles.write(folder / f'{index:05}-generated.pth', node)
    values, counts = (pickles.array(pickles.dtype(code)) for code in ('f8', 'i8'))
    whole = {
        'state_dict': {'weight': pickles.tensor(), 'bias': pickles.tensor(4)},
        'message_hub': {'loss': pickles.history(values, counts)},
        'meta': {'best': pickles.number(pickles.dtype(), bytes(8))},
    }
    pickles.write(folder / 'whole.pth', whole)
    good = b'\x80\x02' + pickles.assemble(whole) + b'.'
    for index in range(MUTATED):
        path = folder / f'{index:05}-mutated.pth'
        pickles.write(path, None, pickled=pickles.mutate(good, source))
        if index % 3 == 0:
            path.write_bytes(pickles.mutate(path.read_bytes(), source))


def test_refused_or_harmless(tmp_path):
    files, here = tmp_path / 'files', tmp_path / 'here'
    files.mkdir(), here.mkdir()
    write_files(files)
    result = subprocess.run(
        [sys.executable, ROOT / 'tests' / 'helpers' / 'read_in_children.py', files],
        cwd=here,
        capture_output=True,
        encoding='utf-8',
    )
    assert result.returncode == 0, result.stderr[-3000:]
    outcomes = json.loads(result.stdout.splitlines()[-1])  # what mmdet is made of may print, too
    counts = Counter(outcomes.values())
    print(counts)
    harmless = {'refused', 'unreadable', 'read', 'read, useless'}
    assert {name: outcome for name, outcome in outcomes.items() if outcome not in harmless} == {}
    assert outcomes.pop('whole.pth') == 'read'
    assert len(outcomes) >= 1000 + MUTATED
    assert list(here.iterdir()) == []  # nothing was executed
