"""Install mmcv with its operators, compiled from source: ``tools/build_mmcv.py mmcv==2.1.0``.

Run it with the Python of an environment that has torch, ``setuptools<81``, wheel and ninja. The
arguments are pip's: ``onedl-mmcv==2.3.6`` or ``-r requirements/openmmlab.txt``, for example.

Nearly all the time of such a build goes into torch's headers, which every file of mmcv includes.
Here they are compiled once, ahead. GCC takes them from there, and where they do not fit (other
flags, CUDA) it reads them as ever.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = """\
#ifdef __cplusplus
#if __has_include(<torch/types.h>)
#include <torch/types.h>
#endif
#endif
"""
COMPILER = "a C++ compiler and Python's headers have to be there"
# Loads the compiled operators alone: mmcv itself imports OpenCV, which may lack libGL.
LOAD_OPERATORS = """
import importlib.util as util, pathlib, torch
[folder] = util.find_spec('mmcv').submodule_search_locations
[library] = pathlib.Path(folder).glob('_ext.*')
util.module_from_spec(util.spec_from_file_location('mmcv._ext', library))
"""


def main() -> None:
    requirements = sys.argv[1:]
    if not requirements or {'-h', '--help'} & set(requirements):
        print(__doc__)
        sys.exit(0 if requirements else 2)
    needs = ('torch', 'setuptools', 'wheel')
    lacking = [name for name in needs if not importlib.util.find_spec(name)]
    if lacking:
        sys.exit(f'error: mmcv is built with {", ".join(lacking)}, which {sys.executable} lacks')
    with tempfile.TemporaryDirectory(prefix='mmcv-') as folder:
        prepare(Path(folder))
        install(*requirements)
        if not has_operators():  # what pip had cached was built with another torch, or without one
            install(*requirements, '--no-deps', '--force-reinstall', '--no-cache-dir')
    if not has_operators():
        sys.exit(f'error: mmcv was installed without operators: {COMPILER}')


def prepare(folder: Path) -> None:
    """Set what pip's builds take from the environment, and compile torch's headers into a folder.

    They are added to CPPFLAGS, because CFLAGS would replace Python's own flags, -O3 among them.
    """
    jobs = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    os.environ.setdefault('MAX_JOBS', str(jobs))  # mmcv would start four at least, a GiB each
    os.environ['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'  # ninja
    flags = [*shlex.split(os.environ.get('CPPFLAGS', '')), '-g0']
    os.environ['CPPFLAGS'] = shlex.join(flags)
    header = folder / 'torch_types.hpp'
    header.write_text(HEADER, encoding='utf-8')
    if precompile(header):
        os.environ['CPPFLAGS'] = shlex.join([*flags, '-include', str(header)])


def precompile(header: Path) -> bool:
    """Compile a header with the flags that torch's ``BuildExtension`` is going to use."""
    from setuptools._distutils.ccompiler import new_compiler  # Python 3.12 has no distutils
    from setuptools._distutils.sysconfig import customize_compiler
    from torch.utils.cpp_extension import include_paths

    compiler = new_compiler()
    customize_compiler(compiler)
    command = [os.environ.get('CXX', 'c++'), *compiler.compiler_so[1:], '-std=c++17', '-w']
    command += ['-DTORCH_API_INCLUDE_EXTENSION_H', '-DTORCH_EXTENSION_NAME=_ext']
    command += [f'-I{path}' for path in include_paths()]
    print("compiling torch's headers, which mmcv's operators include", flush=True)
    try:
        # Clang would stop at a file of this name: it calls its own .pch.
        if 'Free Software Foundation' not in subprocess.getoutput(f'{command[0]} --version'):
            return False
        subprocess.run([*command, '-x', 'c++-header', header, '-o', f'{header}.gch'], check=True)
    except (OSError, subprocess.CalledProcessError):
        return False  # what is wrong shows, or does not matter, when mmcv is built
    return True


def install(*arguments: str) -> None:
    """Call pip, and show how far its compiler has come; if it fails, the end of what it said."""
    print('mmcv: compiling its operators, unless pip has them cached', flush=True)
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'install', '-v']
    command += ['--no-build-isolation', *arguments]
    said = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf-8',
        errors='replace',
    ) as pip:
        for line in pip.stdout:
            said.append(line)
            if progress := re.search(r'\[\d+/\d+\] ', line):
                print('  compiled', progress[0], flush=True)
    if pip.returncode:
        log = Path(tempfile.gettempdir(), 'mmcv-build.log')
        log.write_text(''.join(said), encoding='utf-8')
        print(*said[-40:], sep='')
        sys.exit(f'error: mmcv could not be installed: {COMPILER}; all that pip said: {log}')


def has_operators() -> bool:
    """Whether mmcv's operators are there, and fit the torch of this environment."""
    load = subprocess.run([sys.executable, '-c', LOAD_OPERATORS], stderr=subprocess.DEVNULL)
    return load.returncode == 0


if __name__ == '__main__':
    main()
