"""Every mistake of the table ends with its exit code and its sentence."""

import pytest

from helpers.bad_input import find_cases, run_case


@pytest.mark.parametrize('name', find_cases())
def test_case(name, record_property, tmp_path):
    verdict, printed = run_case(name, tmp_path)
    record_property('verdict', verdict)  # for the sum at the end
    assert verdict == 'clear', printed[-3000:]
