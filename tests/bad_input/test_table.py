"""Every mistake of the table ends with its exit code and its sentence."""

import pytest

from helpers.bad_input import find_cases, run_case


@pytest.mark.parametrize('name', find_cases())
def test_case(name, table, tmp_path):
    table.verdicts[name] = 'unclear'  # if it hangs
    table.verdicts[name], printed = run_case(name, tmp_path)
    assert table.verdicts[name] == 'clear', printed[-3000:]
