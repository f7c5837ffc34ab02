import errno
import os
import re
import signal
import subprocess
import sys

import pytest

from lesa_mmdet.engine.lock import NAME, lock, lock_work_dir, release
from lesa_mmdet.utils.errors import UserValueError

HOLD = """
import sys
from lesa_mmdet.engine.lock import lock
lock(sys.argv[1])
print('locked', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process, which has the lock."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding='utf-8',
    )
    assert 'locked\n' in process.stdout  # what mmdet is made of may print before
    yield process
    process.kill()
    process.wait()


def test_of_another_process_and_stale(other, tmp_path):
    with pytest.raises(ValueError, match=f'{re.escape(str(tmp_path))} is in use.*{other.pid} on'):
        lock(tmp_path)
    assert (tmp_path / NAME).read_text(encoding='utf-8'), (
        'who has it stays there for the next to ask'
    )
    other.send_signal(signal.SIGKILL)
    other.wait()
    lock(tmp_path)
    assert f'"pid": {os.getpid()}' in (tmp_path / NAME).read_text(encoding='utf-8')
    release(tmp_path)


@pytest.mark.parametrize('name', [NAME, 'last_checkpoint', 'config.py', 'config.json'])
@pytest.mark.parametrize('there', [True, False])
def test_nothing_is_written_through_a_link(name, there, tmp_path):
    precious = tmp_path / 'precious.txt'
    if there:
        precious.write_text('mine', encoding='utf-8')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / name).symlink_to(precious)
    with pytest.raises(UserValueError, match=f'{name} is a link, to which nothing is written'):
        lock(tmp_path / 'run')
    assert precious.exists() == there
    assert not there or precious.read_text(encoding='utf-8') == 'mine'


def test_own_lock_may_be_taken_again_and_is_given_back(tmp_path):
    lock(tmp_path / 'new')
    lock(tmp_path / 'new')
    release(tmp_path / 'new')
    release(tmp_path / 'new')
    code = f'from lesa_mmdet.engine.lock import lock; lock({str(tmp_path / "new")!r})'
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)


@pytest.mark.parametrize(
    'number', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.EPERM, errno.EBADF]
)
def test_a_disk_without_locks_is_used_with_a_warning(number, tmp_path, monkeypatch, told):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('fcntl.lockf', refuse)
    lock(tmp_path)
    lock(tmp_path)
    (line,) = told
    assert f'{tmp_path} cannot be locked' in line and os.strerror(number) in line
    release(tmp_path)
    lock(tmp_path)
    assert len(told) == 2
    release(tmp_path)


@pytest.mark.parametrize('number', [errno.EACCES, errno.EAGAIN])
def test_what_a_lock_that_is_held_is_called(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('fcntl.lockf', refuse)
    with pytest.raises(UserValueError, match='is in use by another training'):
        lock(tmp_path)


def test_work_dir_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('RANK', '1')
    lock_work_dir(None, 'configs/some.py', 'pytorch')
    assert not (tmp_path / 'work_dirs').exists()
    lock_work_dir(None, 'configs/some.py', 'none')
    assert (tmp_path / 'work_dirs' / 'some' / NAME).is_file()
    release(tmp_path / 'work_dirs' / 'some')
