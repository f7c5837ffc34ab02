"""Imports run one way: from a folder to those that stand before it, and in no circle."""

import ast
from graphlib import TopologicalSorter

import lesa_mmdet

from helpers.paths import ROOT
from helpers.processes import execute

PACKAGE = ROOT / 'lesa_mmdet'
ORDER = (
    *('version', 'attention', 'utils', 'upstream'),
    *('checkpoints', 'datasets', 'models'),
    *('analysis', 'evaluation', 'apis'),
    *('engine', 'visualization'),
    '__init__',
)
FILES = {path.relative_to(PACKAGE).with_suffix('').parts: path for path in PACKAGE.rglob('*.py')}


def imports(parts, *, top_level=False):
    """What a module imports: absolute names, and paths of modules of the package."""
    tree = ast.parse(FILES[parts].read_text(encoding='utf-8'))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split('.')) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield tuple(node.module.split('.'))
        elif isinstance(node, ast.ImportFrom):
            base = (
                *parts[: len(parts) - node.level],
                *filter(None, (node.module or '').split('.')),
            )
            for alias in node.names:
                found = [p for p in ((*base, alias.name), base, (*base, '__init__')) if p in FILES]
                yield found[0]


def test_no_import_points_back_and_none_is_absolute():
    for parts in FILES:
        for other in imports(parts):
            assert other[0] != 'lesa_mmdet', f'{parts}: a module of ours by its absolute name'
            if other in FILES:
                assert ORDER.index(other[0]) <= ORDER.index(parts[0]), f'{parts} -> {other}'


def test_no_circle():
    own = {parts: [x for x in imports(parts, top_level=True) if x in FILES] for parts in FILES}
    assert len(list(TopologicalSorter(own).static_order())) == len(FILES)


def test_the_package_alone_brings_neither_mmdets_apis_nor_pictures():
    code = 'import sys, lesa_mmdet; print("LOADED", *sorted(sys.modules))'
    loaded = set(execute(code).partition('LOADED')[2].split())
    assert 'mmdet.models' in loaded and 'mmdet.apis' not in loaded
    # matplotlib is there all the same: mmdet.models -> mmdet.utils -> mot_error_visualize.
    ours = [name.split('.')[1:] for name in loaded if name.startswith('lesa_mmdet.')]
    for parts in map(tuple, ours):
        parts = parts if parts in FILES else (*parts, '__init__')
        assert 'matplotlib' not in {name[0] for name in imports(parts)}, parts


def test_public_names_are_there():
    assert all(hasattr(lesa_mmdet, name) for name in lesa_mmdet.__all__)
    assert len(set(lesa_mmdet.__all__)) == len(lesa_mmdet.__all__)
