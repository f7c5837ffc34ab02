"""Programs in Python processes of their own."""

import subprocess
import sys

from .paths import ROOT


def execute(program, *arguments):
    """What a program prints in a process that has imported nothing yet; errors are shown."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        encoding='utf-8',
    ).stdout
