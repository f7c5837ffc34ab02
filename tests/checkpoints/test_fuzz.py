"""Files that attack who reads them are refused or harmless, and never end the process.

Each is read under limits of memory and time: tests/programs/read_in_children.py.
"""

import json
import random
import subprocess
import sys
import zipfile
from collections import Counter

from helpers import pickles
from helpers.paths import ROOT

GENERATED, MUTATED, LEGACY, ARCHIVES = 3200, 1000, 500, 300


def write_files(folder):
    """Known attacks, random trees, and whole files with a few bytes changed."""
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

    def tensor(*args, **kwargs):  # as before there were archives
        call = pickles.tensor(*args, **kwargs)
        call.args[0].pid = (*call.args[0].pid, source.choice([None, None, None, ('1', 0, 4)]))
        return call

    old = {'state_dict': {'weight': tensor(), 'bias': tensor(4)}}
    old['state_dict']['weight'].args[0].pid = (*pickles.pid().pid, None)
    old['state_dict']['bias'].args[0].pid = (*pickles.pid().pid, None)
    pickles.write_legacy(folder / 'whole-legacy.pth', old)
    legacy = (folder / 'whole-legacy.pth').read_bytes()
    for index in range(LEGACY):
        path = folder / f'{index:05}-legacy.pth'
        if index % 2:
            path.write_bytes(pickles.mutate(legacy, source))
            continue
        count = source.choice([16, 16, 4, 1 << 20, 1 << 40, -1])
        pickles.write_legacy(
            path,
            source.choice([old, attacks.node(), tensor(**attacks.storage())]),
            source.choice([('0',), ('0', '0'), (), ('1',), (7,), (b'0',)]),
            source.choice([((count, bytes(64)),), (), ((count, b''),)]),
        )

    for index in range(ARCHIVES):
        zeros = source.choice([64, 1 << 16, 1 << 20])
        more = source.choice(
            [
                (),
                [('archive/data.pkl', good)],
                [('ARCHIVE/DATA.PKL', b'\x80\x02N.')],
                [('archive/constants.pkl', good)],
                [('archive/data/0', b'')],
                [('archive/.storage_alignment', source.choice(['0', '-1', '9' * 5000, 'x']))],
                [('archive/byteorder', 'x' * 99)],
                [(f'archive/{"../" * 9}executed', b'a')],
                [(f'archive/data/{i}', b'') for i in range(2000)],
            ]
        )
        count = source.choice([16, zeros // 4, zeros])
        node = {'state_dict': {'weight': pickles.tensor(0, (count,), (1,), count=count)}}
        path = folder / f'{index:05}-archive.pth'
        compression = source.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
        pickles.write(path, node, bytes(zeros), compression=compression, more=more)
        if index % 3 == 0:
            content = path.read_bytes()
            if len(content) < 1 << 16:
                path.write_bytes(pickles.mutate(content, source))


def test_refused_or_harmless(tmp_path):
    files, here = tmp_path / 'files', tmp_path / 'here'
    files.mkdir(), here.mkdir()
    write_files(files)
    result = subprocess.run(
        [sys.executable, ROOT / 'tests' / 'programs' / 'read_in_children.py', files],
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
    assert outcomes.pop('whole-legacy.pth') == 'read'
    assert len(outcomes) >= 5000
    assert list(here.iterdir()) == []  # nothing was executed
