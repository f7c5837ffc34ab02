"""Measurements in processes of their own."""

import multiprocessing
import os
import signal
import threading
import time

import measure
import pytest


class Import:
    """An argument that a process waits for, as for what it imports, before it is called."""

    def __reduce__(self):
        return time.sleep, (60,)


class Interruption(BaseException):
    pass


@pytest.fixture
def interrupted():
    """Interrupt this process once it has started another, which is the only item of the list."""
    started, others = [], set(multiprocessing.active_children())

    def interrupt(*_):
        raise Interruption

    def wait_and_interrupt():
        while not started:
            time.sleep(0.1)
            started.extend(set(multiprocessing.active_children()) - others)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    threading.Thread(target=wait_and_interrupt, daemon=True).start()
    yield started
    signal.signal(signal.SIGALRM, before)
    for process in started:
        process.kill()


def test_an_interruption_ends_the_process_also_while_it_imports(interrupted):
    with pytest.raises(Interruption):
        measure.in_own_process(print, Import())
    (process,) = interrupted
    process.join(5)
    assert process.exitcode == -signal.SIGKILL


def test_a_result_or_what_went_wrong():
    assert measure.in_own_process(divmod, 7, 2) == (3, 1)
    assert measure.in_own_process(os._exit, 3)['error'].startswith('ended with exit code 3')
    assert measure.in_own_process(int, 'x') == {
        'error': "invalid literal for int() with base 10: 'x'"
    }
