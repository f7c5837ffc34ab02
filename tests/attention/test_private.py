"""Names of PyTorch that are not for others to use: a table has all, and each is still there."""

import ast
import pkgutil
import re
import warnings

import pytest
import torch

from lesa_mmdet.attention import attend, private
from lesa_mmdet.attention.decomposed import chunked
from lesa_mmdet.attention.private import PRIVATE

from helpers.paths import ROOT

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


def test_without_products_of_onednn_there_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: True)
    monkeypatch.setattr(torch.ops, 'mkldnn', object())
    with pytest.warns(UserWarning, match='hides the matrix products of its oneDNN'):
        assert not chunked._has_onednn()
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not chunked._has_onednn()


@pytest.mark.parametrize(
    ('module', 'name'),
    [(torch._C, '_are_functorch_transforms_active'), (torch._C, '_AutoDispatchBelowAutograd')],
)
def test_without_what_registers_operators_it_fails_loudly(module, name, monkeypatch):
    monkeypatch.delattr(module, name)
    inputs = [torch.randn(1, 1, 6, channels) for channels in (2, 2, 2, 2, 3)]
    with pytest.raises(AttributeError, match=name):
        attend(*inputs, backend='chunked')


def test_without_the_softmaxs_gradient_the_backward_pass_fails_loudly(monkeypatch):
    monkeypatch.delattr(torch, '_softmax_backward_data')
    inputs = [torch.randn(1, 1, 6, n, requires_grad=True) for n in (2, 2, 2, 2, 3)]
    with pytest.raises(AttributeError, match='_softmax_backward_data'):
        attend(*inputs, backend='chunked').sum().backward()
