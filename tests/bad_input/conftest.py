import pytest

from helpers.bad_input import Table

TABLE = pytest.StashKey[Table]()


def pytest_configure(config):
    config.stash[TABLE] = Table()


@pytest.fixture
def table(request):
    """The verdicts so far, which are summed up at the end."""
    return request.config.stash[TABLE]


def pytest_terminal_summary(terminalreporter, config):
    table = config.stash[TABLE]
    if table.verdicts:
        terminalreporter.write_line(f'bad input: {table.summary()}')
