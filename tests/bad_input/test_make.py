"""What the Makefile may make and remove, with a Python that only plays installing."""

import os
import shutil
import subprocess
import sys

import pytest

from helpers.paths import ROOT

# Says that it is some version, and makes environments of itself. pip fails where $PIP_FAILS.
PRETENDED_PYTHON = """\
#!/bin/bash
case "$*" in
  *sys.version_info*) echo {version} ;;
  "-m venv "*) {venv}
    mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *"-m pip"*" install --help") ;;
  *"-m pip"*) echo "pip: ${{*: -4}}"; [[ -z ${{PIP_FAILS:-}} ]] ;;
  *) echo "python: $*" ;;
esac
"""


@pytest.fixture(params=['checkout', 'a checkout'])
def checkout(tmp_path, request):
    """What the Makefile works with, in a folder with and without a space."""
    root = tmp_path / request.param
    for folder in ('requirements', 'tools'):
        shutil.copytree(ROOT / folder, root / folder)
    for name in ('Makefile', 'setup.py'):
        shutil.copy(ROOT / name, root)
    return root


@pytest.fixture
def pretend(tmp_path):
    """A Python of a version, at a path with a space."""

    def write(version, venv=''):
        python = tmp_path / 'some pythons' / f'python{version}'
        python.parent.mkdir(exist_ok=True)
        python.write_text(PRETENDED_PYTHON.format(version=version, venv=venv), encoding='utf-8')
        python.chmod(0o755)
        return python

    return write


@pytest.fixture
def make(checkout):
    """Call make; its exit code and what it said."""

    def call(*arguments, **env):
        clean = {
            name: value
            for name, value in os.environ.items()  # without those of a make around the tests
            if name not in ('PYTHON', 'STACK', 'VENV') and not name.startswith(('MAKE', 'MFLAGS'))
        }
        result = subprocess.run(
            ['make', *map(str, arguments)],
            cwd=checkout,
            env={**clean, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding='utf-8',
        )
        return result.returncode, result.stdout

    return call


def test_setup_is_made_once_and_cleaned(make, checkout, pretend):
    python = pretend('3.11')
    code, out = make('setup', f'PYTHON={python}')
    assert code == 0 and '-r requirements/openmmlab.txt' in out
    assert (checkout / '.venv' / '.ready').is_file()
    assert make('setup', f'PYTHON={python}') == (0, '')
    (checkout / 'requirements' / 'tests.txt').touch()
    assert './mmcv_torchvision' in make('setup', f'PYTHON={python}')[1]
    assert make('clean')[0] == 0
    assert not (checkout / '.venv').exists()


@pytest.mark.parametrize('version', ['3.10', '3.12', '3.13'])
@pytest.mark.parametrize(('stack', 'folder'), [('openmmlab', '.venv'), ('onedl', '.venv-onedl')])
def test_stack_has_a_folder_of_its_own(version, stack, folder, make, checkout, pretend):
    arguments = [] if stack == 'openmmlab' else [f'STACK={stack}']
    code, out = make('setup', f'PYTHON={pretend(version)}', *arguments)
    assert code == 0 and f'requirements/{stack}.txt' in out
    assert (checkout / folder / '.ready').is_file()


@pytest.mark.parametrize(
    'version, arguments, says',
    [
        ('2.7', [], 'is Python 2.7: 3.10 to 3.13 are needed'),
        ('3.9', ['STACK=onedl'], 'is Python 3.9: 3.10 to 3.13 are needed'),
        ('3.14', [], 'is Python 3.14: 3.10 to 3.13 are needed'),
        ('3.11', ['STACK=other'], 'STACK=other is neither openmmlab nor onedl'),
        (None, [], 'is no Python that runs'),
    ],
)
def test_what_cannot_be_made(version, arguments, says, make, checkout, pretend):
    python = pretend(version) if version else 'no-such-python'
    code, out = make('setup', f'PYTHON={python}', *arguments)
    errors = [line for line in out.splitlines() if 'error: ' in line]
    assert code == 2 and len(errors) == 1 and says in errors[0]
    assert not list(checkout.glob('.venv*'))


def test_python_without_venv_leaves_nothing(make, checkout, pretend):
    python = pretend('3.11', venv='mkdir -p "$3/bin"; exit 1')
    code, out = make('setup', f'PYTHON={python}')
    assert code == 2 and 'has no module venv that works' in out
    assert not (checkout / '.venv').exists()


def test_interrupted_setup_goes_on(make, checkout, pretend):
    python = pretend('3.11')
    assert make('setup', f'PYTHON={python}', PIP_FAILS='1')[0] == 2
    assert not (checkout / '.venv' / '.ready').exists()
    installed = checkout / '.venv' / 'installed'
    installed.touch()
    assert make('setup', f'PYTHON={python}')[0] == 0
    assert installed.exists()


def test_interrupted_setup_of_another_python_starts_over(make, checkout, pretend):
    assert make('setup', f'PYTHON={pretend("3.11")}', PIP_FAILS='1')[0] == 2
    (checkout / '.venv' / 'installed').touch()
    assert make('setup', f'PYTHON={pretend("3.12")}')[0] == 0
    assert not (checkout / '.venv' / 'installed').exists()


def test_another_python_than_that_of_the_environment(make, pretend):
    assert make('setup', f'PYTHON={pretend("3.11")}')[0] == 0
    code, out = make('setup', f'PYTHON={pretend("3.12")}')
    assert code == 2 and '.venv has Python 3.11' in out and 'make clean first' in out


def test_environment_of_somebody_else(make, checkout, pretend):
    theirs = checkout / '.venv' / 'pyvenv.cfg'
    theirs.parent.mkdir()
    theirs.touch()
    code, out = make('setup', f'PYTHON={pretend("3.11")}')
    assert code == 2 and 'error: make did not make .venv: VENV=.venv uses it' in out
    code, out = make('clean')
    assert code == 0 and '.venv was not made by make: it stays' in out
    assert theirs.exists()


@pytest.mark.parametrize('name', ['env', 'an env'])
def test_clean_leaves_a_given_environment(name, make, checkout, pretend, tmp_path):
    assert make('setup', f'PYTHON={pretend("3.11")}')[0] == 0
    theirs = tmp_path / name / 'bin' / 'python'
    theirs.parent.mkdir(parents=True)
    shutil.copy(pretend('3.11'), theirs)
    assert make('clean', f'VENV={tmp_path / name}')[0] == 0
    assert theirs.exists() and not (checkout / '.venv').exists()
    for root in ('/', tmp_path):
        assert 'rm -rf /' not in make('-n', 'clean', f'VENV={root}')[1]


def test_given_environment_is_used_as_it_is(make, checkout, pretend, tmp_path):
    theirs = tmp_path / 'an env' / 'bin' / 'python'
    theirs.parent.mkdir(parents=True)
    shutil.copy(pretend('3.9'), theirs)
    assert make('demo', f'VENV={tmp_path / "an env"}') == (
        0,
        'python: tools/check_env.py\n'
        f'"{tmp_path / "an env"}/bin/python" tools/demo.py\n'
        'python: tools/demo.py\n',
    )
    assert 'python: tools/check_env.py --tests\n' in make('test', f'VENV={tmp_path / "an env"}')[1]
    assert not list(checkout.glob('.venv*'))
    code, out = make('demo', 'VENV=nowhere')
    assert code == 2 and 'error: VENV=nowhere has no bin/python' in out


def test_demo_needs_nothing_of_the_tests(run, tmp_path):
    """In an environment of one's own: pytest, ruff, hypothesis and onnx may be missing."""
    for name in ('pytest', 'ruff', 'hypothesis', 'onnx', 'onnxscript', 'xdist'):
        (tmp_path / f'{name}.py').write_text(f'raise ImportError("no {name}")', encoding='utf-8')
    out = run('make', 'setup', f'VENV={sys.prefix}', PYTHONPATH=str(tmp_path))
    assert 'has all that is needed' in out
    out = run('tools/check_env.py', '--tests', succeeds=False, PYTHONPATH=str(tmp_path))
    assert out.count('-> pip install -r requirements/tests.txt') == 6
