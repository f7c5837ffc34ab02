"""What we take of other packages that is not for others to use: all of it is in a table."""

import ast
import importlib
import inspect
import pkgutil
import re
import sys

import pytest

from lesa_mmdet import upstream
from lesa_mmdet.engine import launch
from lesa_mmdet.upstream import PRIVATE, Private, check_private

from helpers.paths import ROOT

PACKAGE = ROOT / 'lesa_mmdet'
FILES = {
    '.'.join(path.relative_to(PACKAGE).with_suffix('').parts): path
    for path in PACKAGE.rglob('*.py')
    if path.relative_to(PACKAGE).parts[0] != 'attention'  # which has a table of its own
}
# No names of others: torch._C on the way to one, texts, and what named tuples offer to all.
TEXTS = {'_C', '_asdict', '_ext', '_mAP', '_metadata', '_results'}
TEXTS |= {'_log_history', '_count_history'}  # keys of a file
OPTIONAL = ('mmpretrain',)
OVERRIDDEN = [
    private for private in PRIVATE if '(self' in private.name and 'torch.nn' not in private.name
]


def leaf(private):
    return private.name.partition('(')[0].rpartition('.')[2]


def is_private(name):
    return isinstance(name, str) and re.fullmatch(r'_[a-zA-Z]\w*[^_\W]', name) is not None


def defined(tree):
    """Names that a module defines itself: functions, classes, variables, attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if getattr(node.value, 'id', '') == 'self':
                yield node.attr


def named(tree):
    """Private names that a module uses of others, also as texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if getattr(node.value, 'attr', '') != '_C':  # torch._C._autograd is on the way
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant):
            yield node.value


def overridden(name):
    """Private methods of classes of a module that a base class of another package has, too."""
    if name == 'models.classifiers':  # not everywhere can it be imported
        return {'_load_from_state_dict'}
    module = importlib.import_module(f'lesa_mmdet.{name.removesuffix(".__init__")}')
    classes = [c for c in vars(module).values() if isinstance(c, type)]
    return {
        attribute
        for cls in classes
        if cls.__module__ == module.__name__
        for attribute in vars(cls)
        if is_private(attribute) and inspect.isfunction(vars(cls)[attribute])
        for base in cls.__mro__[1:]
        if attribute in vars(base) and not base.__module__.startswith('lesa_mmdet')
    }


def test_the_table_has_every_private_name_and_who_uses_it():
    found = set()
    for name, path in FILES.items():
        if name == 'upstream':
            continue
        tree = ast.parse(path.read_text(encoding='utf-8'))
        own = set(defined(tree))
        used = {n for n in named(tree) if is_private(n)} - own - TEXTS
        found |= {(n, name) for n in used | overridden(name)}
    listed = {(leaf(p), user) for p in PRIVATE for user in p.users.split()}
    assert found == {(name, user) for name, user in listed if is_private(name)}
    for name, user in listed:
        assert name in FILES[user].read_text(encoding='utf-8')


def resolve(name):
    module, _, attribute = name.rpartition('.')
    if module == 'mmdet.tools':
        return launch._load_tool(launch.find_tool('train.py'))[attribute]
    return pkgutil.resolve_name(name)


@pytest.mark.parametrize('private', PRIVATE, ids=leaf)
def test_it_is_still_there(private):
    name, _, arguments = private.name.partition('(')
    package = name.partition('.')[0]
    if package in OPTIONAL:
        pytest.importorskip(package)
    try:
        found = resolve(name)
    except AttributeError:  # of an instance, or local to a function
        owner = resolve(name.rpartition('.')[0])
        assert f'.{leaf(private)}' in inspect.getsource(owner)
    else:
        assert found is not None
        assert not arguments or ', '.join(inspect.signature(found).parameters) == arguments[:-1]


@pytest.mark.parametrize('private', OVERRIDDEN, ids=leaf)
def test_what_is_overridden_is_called(private):
    cls = pkgutil.resolve_name(private.name.partition('(')[0].rpartition('.')[0])
    sources = [
        inspect.getsource(sys.modules[base.__module__])
        for base in (cls, *cls.__mro__)
        if base.__module__.startswith(('mmengine', 'mmdet'))
    ]
    assert any(f'self.{leaf(private)}(' in source for source in sources)


def test_what_is_gone_or_takes_other_arguments_is_refused_with_what_it_would_do():
    gone = Private('mmengine.hooks.CheckpointHook._gone(self)', 'x', 'files would stay')
    with pytest.raises(ImportError, match='_gone of the installed mmengine .*gone.*would stay; in'):
        check_private((gone,))
    saving = next(p for p in PRIVATE if leaf(p) == '_save_checkpoint_with_step')
    changed = saving._replace(name=saving.name.replace('meta)', 'meta, more)'))
    with pytest.raises(ImportError, match='it takes self, runner, step, meta.: outdated'):
        check_private((changed,))
    check_private()


def test_public_names_come_from_here():
    """What ``upstream`` names is imported from nowhere else."""
    names = set(upstream.__all__) - {'register_backbone'}
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if name != 'upstream' and isinstance(node, ast.ImportFrom) and not node.level:
                taken = {alias.name for alias in node.names} & names
                assert not taken or node.module.startswith('mmpretrain'), (name, taken)
