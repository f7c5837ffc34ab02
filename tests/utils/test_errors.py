"""Errors that a user can mend are told from bugs by their class, wherever they come from."""

import ast
import builtins
import pickle

import pytest
from torch.utils.data import DataLoader, Dataset

from lesa_mmdet.attention import errors as of_attention
from lesa_mmdet.utils import errors
from lesa_mmdet.utils.command import explain

from helpers.paths import ROOT

SOURCES = [path for top in ('lesa_mmdet', 'tools') for path in sorted((ROOT / top).rglob('*.py'))]
# What a user is told with; of these, errors.py has a class each. Attention's self-test raises
# one at itself, and reports it; those of scan.py end in a sentence of files.py.
PLAIN = {'ValueError', 'TypeError', 'FileNotFoundError', 'FileExistsError', 'PermissionError'}
EXCEPT = {'lesa_mmdet/attention/self_test.py', 'lesa_mmdet/checkpoints/scan.py'}
MENDABLE = [
    kind
    for module in (errors, of_attention)
    for kind in vars(module).values()
    if isinstance(kind, type) and kind.__module__ == module.__name__
]


class Broken(Dataset):
    """One element, for which it raises an error."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise LookupError('ValueError: of something else')
        except LookupError as error:
            raise self.error from error


def load(error, workers):
    elements = iter(DataLoader(Broken(error), num_workers=workers))
    with pytest.raises(type(error)) as caught:
        next(elements)
    if workers:  # the error holds the loader, and that its workers and their pipes
        elements._shutdown_workers()
    return caught.value


def test_nothing_is_refused_with_a_plain_error():
    raised = {
        f'{path.relative_to(ROOT).as_posix()}:{node.lineno}'
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, 'id', '') in PLAIN
    }
    assert {place for place in raised if place.partition(':')[0] not in EXCEPT} == set()


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('kind', [*MENDABLE, OSError, FileNotFoundError, ImportError])
def test_a_sentence_comes_out_of_a_data_loader(kind, workers):
    assert explain(load(kind('photo.jpg: it is broken'), workers)) == 'photo.jpg: it is broken'


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('kind', [ValueError, TypeError, RuntimeError, KeyError, AssertionError])
def test_a_bug_in_a_data_loader_is_none(kind, workers):
    assert explain(load(kind('x'), workers)) is None


@pytest.mark.parametrize('kind', MENDABLE)
def test_who_catches_what_python_would_raise_catches_it(kind):
    plain = kind.__name__.removeprefix('User').removeprefix('Refused')
    if plain not in ('', 'Error'):
        assert issubclass(kind, getattr(builtins, plain))
    assert str(pickle.loads(pickle.dumps(kind('text')))) == 'text'
