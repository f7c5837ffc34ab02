"""No check rests on an assert, ours or upstream's: ``python -O`` and ``-OO`` remove them."""

import ast
import subprocess
import sys

import pytest

from helpers.paths import ROOT


def test_nothing_of_ours_asserts():
    files = [path for top in ('lesa_mmdet', 'tools') for path in (ROOT / top).rglob('*.py')]
    asserts = {
        f'{path.relative_to(ROOT)}:{node.lineno}'
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.Assert)
    }
    assert len(files) > 80 and asserts == set()


@pytest.mark.parametrize('flag', ['-O', '-OO'])
def test_tools_and_checks_work_without_asserts_and_docstrings(flag):
    result = subprocess.run(
        [sys.executable, flag, '-W', 'ignore', ROOT / 'tests' / 'programs' / 'optimized.py'],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf-8',
    )
    assert result.returncode == 0, result.stdout
    helps = [line for line in result.stdout.splitlines() if line.startswith('HELP')]
    assert len(helps) > 15 and all(line.endswith(' 0 True') for line in helps), helps
    refused = [line for line in result.stdout.splitlines() if line.startswith('REFUSED')]
    assert ['80 classes, but the data set 2' in line for line in refused[:2]] == [True, True]
    assert 'the loss is nan in iteration 1' in refused[2]
    assert 'annotation 1 of image 1 has an id that another one has' in refused[3]
    assert 'DEBUG False' in result.stdout
