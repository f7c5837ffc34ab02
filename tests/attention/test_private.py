"""Names of PyTorch that are not for others to use: a table has all, and each is still there."""

import ast
import pkgutil
import re
import warnings

import pytest
import torch

from lesa_mmdet.attention import attend, first_use, private
from lesa_mmdet.attention.decomposed import chunked
from lesa_mmdet.attention.private import PRIVATE

from helpers.paths import ROOT
from helpers.processes import execute

PACKAGE = ROOT / 'lesa_mmdet'
NOT_PRIVATE = {'_C', '_replace'}  # torch._C on the way to a name, and a named tuple's method


def defined(tree):
    """Names of functions, classes and variables of a module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def named(tree):
    """Names that a module takes out of others, also as texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant):
            yield node.value


def used():
    for path in (PACKAGE / 'attention').rglob('*.py'):
        if path.name == 'private.py':
            continue
        tree = ast.parse(path.read_text(encoding='utf-8'))
        module = '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)
        for name in set(named(tree)) - set(defined(tree)) - NOT_PRIVATE:
            if isinstance(name, str) and re.fullmatch(r'_[a-zA-Z]\w*', name):
                yield name, module


def test_the_table_has_every_private_name_and_who_uses_it():
    listed = {(p.name.rpartition('.')[2], user) for p in PRIVATE for user in p.users.split()}
    assert set(used()) == listed


@pytest.mark.parametrize('name', [p.name for p in PRIVATE])
def test_it_is_still_there(name):
    if 'mkldnn' in name and not torch.backends.mkldnn.is_available():
        pytest.skip('this PyTorch has no oneDNN')
    assert pkgutil.resolve_name(name) is not None


def test_the_table_imports_nothing_of_ours():
    tree = ast.parse((PACKAGE / 'attention' / 'private.py').read_text(encoding='utf-8'))
    assert private.Private._fields == ('name', 'users', 'without')
    assert [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)] == [
        'typing'
    ]


def attended(backward=False):
    inputs = [torch.randn(1, 1, 6, n, requires_grad=backward) for n in (2, 2, 2, 2, 3)]
    out = attend(*inputs, backend='chunked')
    if backward:
        out.sum().backward()


# What a name is taken from, and what fails loudly without it.
GONE = {
    '_are_functorch_transforms_active': (torch._C, attended),
    '_AutoDispatchBelowAutograd': (torch._C, attended),
    '_softmax_backward_data': (torch, lambda: attended(backward=True)),
    '_current_graph_task_id': (
        torch._C,
        lambda: first_use.passes(
            'decomposed', torch.device('cpu'), (torch.float32,) * 5, (1, 2), (3, 4)
        ),
    ),
}


def test_every_name_of_the_table_is_taken_away():
    names = {private.name.rpartition('.')[2] for private in PRIVATE}
    assert names == {*GONE, '_linear_pointwise', '_BatchNorm'}


@pytest.mark.parametrize('name', GONE)
def test_without_a_name_it_fails_loudly(name, monkeypatch):
    owner, use = GONE[name]
    monkeypatch.setattr(first_use, '_PASSED', {})
    monkeypatch.delattr(owner, name)
    with pytest.raises(AttributeError, match=name):
        use()
    (private,) = (p for p in PRIVATE if p.name.endswith(f'.{name}'))
    assert private.without.startswith('AttributeError ')


def test_without_batch_norms_the_package_does_not_start():
    code = (
        'import torch\n'
        'del torch.nn.modules.batchnorm._BatchNorm\n'
        'try:\n    import lesa_mmdet\n'
        'except ImportError as error:\n    print("SAID", error)\n'
    )
    out = execute(code)
    assert out.startswith('SAID ') and '_BatchNorm' in out and out.count('\n') == 1


def test_without_products_of_onednn_there_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: True)
    monkeypatch.setattr(torch.ops, 'mkldnn', object())
    with pytest.warns(UserWarning, match='hides the matrix products of its oneDNN'):
        assert not chunked._has_onednn()
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not chunked._has_onednn()
