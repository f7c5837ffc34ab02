"""What ends in one sentence, what keeps its traceback, and what is ended with a command."""

import errno
import os
import signal
import subprocess
import sys
import time
from urllib.request import proxy_bypass

import pytest

from lesa_mmdet.models.backbones.arguments import to_size
from lesa_mmdet.utils.command import call, command, explain


def raised(function, *args, **kwargs):
    with pytest.raises(Exception) as error:
        function(*args, **kwargs)
    return error.value


def build(cfg):
    """As mmengine before 0.10 builds: an error gets the name of the class."""
    try:
        to_size(cfg)
    except Exception as error:
        raise type(error)(f'class `LESA_ResNet` in resnet.py: {error}')  # noqa: B904


@pytest.mark.parametrize('name', ['http_proxy', 'HTTP_PROXY', 'all_proxy', 'HTTPS_PROXY'])
@pytest.mark.parametrize('spared', [{}, {'NO_PROXY': 'intern.net'}, {'no_proxy': 'intern.net,::1'}])
def test_this_machine_is_not_asked_through_a_proxy(name, spared, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool'])
    monkeypatch.setattr(os, 'environ', {name: 'http://127.0.0.1:9', **spared})
    command(lambda: None)()
    assert all(proxy_bypass(host) for host in ('localhost', '127.0.0.1:7860', '::1'))
    assert bool(proxy_bypass('intern.net')) == bool(spared)
    assert not proxy_bypass('github.com')
    monkeypatch.setattr(os, 'environ', {name: 'http://127.0.0.1:9', 'NO_PROXY': '*'})
    command(lambda: None)()
    assert proxy_bypass('localhost') and proxy_bypass('github.com')
    monkeypatch.setattr(os, 'environ', {})
    command(lambda: None)()
    assert not os.environ


def test_what_is_refused_on_purpose_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool'])
    with pytest.raises(SystemExit, match='^error: input_size is 0, but has to be'):
        command(lambda: to_size(0))()
    assert explain(raised(build, 0)).startswith('input_size is 0')
    assert explain(raised(open, '/gone')) == "[Errno 2] No such file or directory: '/gone'"


@pytest.mark.parametrize(
    'error, where',
    [
        (OSError(errno.ENOSPC, 'No space left on device'), ''),
        (OSError(errno.EDQUOT, 'Disk quota exceeded', 'out/a\x1b.json'), r'for out/a\x1b.json '),
    ],
)
def test_a_full_disk_is_explained(error, where):
    said = f'no space is left {where}on the disk: free some, or write to another folder'
    assert explain(error) == said


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool'])
    for bug in (lambda: {}['x'], lambda: int('x'), lambda: 1 / 0):
        assert explain(raised(bug)) is None
        with pytest.raises((KeyError, ValueError, ZeroDivisionError)):
            command(bug)()


@pytest.mark.parametrize('arguments', [['foo'], ['a=1', 'foo'], ['a=1', 'b.c=[1,2]', 'config.py']])
def test_options_are_named_if_they_have_no_value(arguments, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool', '--cfg-options', *arguments, '--other', 'thing'])
    with pytest.raises(SystemExit, match=f"takes KEY=VALUE, got '{arguments[-1]}'"):
        command(lambda: None)()


def test_options_with_values_pass(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool', 'x', '--cfg-options', 'a=1', 'b=(1, 2)', '--y', 'z'])
    assert command(lambda: None)() is None


def test_ctrl_c_ends_with_its_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['tool'])

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit:
        command(interrupt)()
    assert exit.value.code == 130 and 'interrupted' in capsys.readouterr().err


def test_exit_code_of_a_program():
    assert call([sys.executable, '-c', 'raise SystemExit(3)']) == 3


def test_a_program_ends_with_the_one_that_started_it():
    code = (
        'from lesa_mmdet.utils.command import call, command; import sys; '
        "command(lambda: call(['bash', '-c', 'echo $$; exec sleep 60']))()"
    )
    with subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, encoding='utf-8'
    ) as parent:
        child = next(line for line in parent.stdout if line.strip().isdigit())
        parent.terminate()
        assert parent.wait(30) == 128 + 15
    time.sleep(0.1)
    assert subprocess.run(['kill', '-0', child.strip()], stderr=subprocess.DEVNULL).returncode == 1


@pytest.mark.parametrize('name, code', [('SIGINT', 130), ('SIGTERM', 143)])
def test_a_program_ends_that_was_starting(name, code, monkeypatch):
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *args):
            super().__init__(*args)
            started.append(self)
            signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(subprocess, 'Popen', Popen)
    monkeypatch.setattr(sys, 'argv', ['tool'])
    with pytest.raises(SystemExit) as ended:
        command(lambda: call(['sleep', '60']))()
    assert ended.value.code == code
    assert started[0].poll() == -signal.SIGTERM


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_ends_what_hangs(name):
    code = (
        'import atexit, time; from lesa_mmdet.utils.command import command; '
        'atexit.register(time.sleep, 60); '
        'command(lambda: (print("go", flush=True), time.sleep(60)))()'
    )
    with subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, encoding='utf-8'
    ) as process:
        while 'go' not in process.stdout.readline():
            pass
        process.send_signal(getattr(signal, name))
        assert process.wait(30) != 0


def test_an_ignored_signal_stays_ignored(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool'])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command(lambda: os.kill(os.getpid(), signal.SIGINT))()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    'given, taken',
    [
        ('~/a', '/home/me/a'),
        ('~', '/home/me'),
        ('--out=~/a', '--out=/home/me/a'),
        ('load_from=~/a.pth', 'load_from=/home/me/a.pth'),
        ('./~/a', './~/a'),
        ('a~b', 'a~b'),
        ('key=a~', 'key=a~'),
    ],
)
def test_home_is_found_where_a_shell_leaves_it_to_us(given, taken, monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    monkeypatch.setattr(sys, 'argv', ['tool', given])
    command(lambda: None)()
    assert sys.argv == ['tool', taken]


@pytest.mark.parametrize(
    'text, sentence',
    [
        ('DataLoader worker (pid(s) 17, 18) exited unexpectedly', 'a worker of a data loader was'),
        ('DataLoader worker (pid 17) is killed by signal: Bus error. ', 'or enlarge /dev/shm'),
        ('received 0 items of ancdata', r'ulimit -n 4096'),
        ('Too many open files. Communication with the workers', 'fewer num_workers'),
        ('shapes do not match', None),
    ],
)
def test_limits_of_the_system_are_explained(text, sentence):
    explained = explain(RuntimeError(text))
    assert explained is None if sentence is None else sentence in explained
