import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COCO_ROOT = Path(os.environ.get('LESA_COCO_ROOT', ROOT.parent / 'shared' / 'data' / 'coco_mini'))


@pytest.fixture(scope='session')
def coco_root():
    """Root of real COCO images: train2017/, val2017/, annotations/instances_*_mini.json."""
    if not (COCO_ROOT / 'annotations' / 'instances_val2017_mini.json').is_file():
        pytest.skip(f'no COCO images in {COCO_ROOT}: set LESA_COCO_ROOT')
    return COCO_ROOT


@pytest.fixture
def run():
    """Run a command of the repository as a user would; fails with its output."""

    def run_command(*command, succeeds=True, **env):
        command = [str(part) for part in command]
        if command[0].endswith('.py'):
            command.insert(0, sys.executable)
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, 'PATH': path, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert (result.returncode == 0) == succeeds, result.stdout[-5000:]
        return result.stdout

    return run_command
