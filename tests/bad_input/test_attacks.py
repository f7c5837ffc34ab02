"""What strangers send is refused in a sentence, in time and in memory."""

from functools import cache

import pytest

from helpers.bad_input import find_cases, run_attacks


@pytest.fixture(scope='module')
def attack(tmp_path_factory):
    """Runs the attacks of a theme, the first time that it is asked for."""
    return cache(lambda theme: run_attacks(theme, tmp_path_factory.mktemp(theme)))


@pytest.mark.parametrize('name', find_cases('attacks'))
def test_attack(name, attack, record_property):
    theme, _, name = name.partition(': ')
    verdict, printed = attack(theme)[name]
    record_property('verdict', verdict)  # for the sum at the end
    assert verdict == 'clear', printed[-3000:]
