"""A private name of another package is taken away: what its table says happens, one by one."""

from unittest.mock import MagicMock, patch

import pytest
import torch
from mmengine.runner import BaseLoop, CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from pycocotools import coco
from torch import nn
from torch.nn.modules import module as torch_module

from lesa_mmdet import upstream
from lesa_mmdet.apis import load
from lesa_mmdet.checkpoints import schemes
from lesa_mmdet.engine import launch
from lesa_mmdet.engine.hooks import AtomicCheckpointHook, FitCheckpointHook, epoch_seed
from lesa_mmdet.engine.hooks import fit_checkpoint as fit
from lesa_mmdet.models.layers import norm, recompute
from lesa_mmdet.upstream import PRIVATE

from helpers.processes import execute

CONV = nn.Conv2d(1, 1, 1)


def place(private):
    """Where a name is, and what it is called there."""
    owner, _, name = private.name.partition('(')[0].rpartition('.')
    return owner, name


def load_by_name(of, url, scheme):
    with patch.object(mmengine_checkpoint, of, lambda: {'x': url}):
        with patch.object(schemes, 'load_from_http', lambda *_: {}):
            CheckpointLoader.load_checkpoint(f'{scheme}://x')


def before_run(runner):
    runner._train_loop = MagicMock(spec=BaseLoop)
    for name, value in dict(_resume=True, _load_from=None).items():
        if hasattr(runner, name):
            setattr(runner, name, value)
    FitCheckpointHook().before_run(runner)


# What is without the name, and what uses it first: AttributeErrors.
GONE = {
    '_schemes': (CheckpointLoader, schemes.register),
    '_get_mmengine_home': (
        mmengine_checkpoint,
        lambda: load_by_name('get_external_models', 'a.pth', 'open-mmlab'),
    ),
    '_process_mmcls_checkpoint': (
        mmengine_checkpoint,
        lambda: load_by_name('get_mmcls_models', 'https://a/a.pth', 'mmcls'),
    ),
    '_DropoutNd': (nn.modules.dropout, lambda: recompute.can_repeat(nn.Sequential())),
    '_saved_tensors_hooks_is_enabled': (torch._C._autograd, recompute._keeps_tensors),
    **{name: (CONV, lambda: norm.is_intercepted(CONV)) for name in norm._HOOKS},
    **{name: (torch_module, lambda: norm.is_intercepted(CONV)) for name in norm._GLOBAL_HOOKS},
}
# The same of a runner's or a model's attributes.
LACKING = {
    '_resume': [before_run],
    '_load_from': [before_run, AtomicCheckpointHook(out_dir='.').before_train],
    '_has_loaded': [before_run],
    '_train_loop': [fit.trains],
    '_train_dataloader': [epoch_seed._build_anew],
    '_val_loop': [fit._evaluated],
    '_test_loop': [fit._evaluated],
    '_dataset_meta': [lambda model: load._name_classes(model, '_dataset_meta', {'CLASSES': 'a'})],
}
BY_WORDS = {
    words: [private for private in PRIVATE if private.without.startswith(words)]
    for words in ('AttributeError when it is first used', 'ImportError when', 'ImportError before')
}
COMPARED = [p for p in PRIVATE if '(' in p.name and p.without != upstream._AT_ONCE]  # overridden
ON_IMPORT = [*BY_WORDS['ImportError when'], *COMPARED]
TOOLS = [place(private)[1] for private in BY_WORDS['ImportError before']]
WARNED = {'_top_saved_tensors_default_hooks', 'open'}


def test_every_name_of_the_table_is_taken_away():
    names = [place(private)[1] for private in PRIVATE]
    at_once = [place(private)[1] for private in BY_WORDS['AttributeError when it is first used']]
    assert sorted(at_once) == sorted({**GONE, **LACKING})
    on_import = [place(private)[1] for private in ON_IMPORT]
    assert sorted(names) == sorted((*at_once, *on_import, *TOOLS, *WARNED))
    for private in PRIVATE:
        assert private.without.startswith('a warning') == (place(private)[1] in WARNED)


@pytest.mark.parametrize('name', GONE)
def test_what_a_package_has_no_more_is_an_error_at_once(name, monkeypatch):
    owner, use = GONE[name]
    monkeypatch.delattr(owner, name)
    with pytest.raises(AttributeError, match=rf'\b{name}\b'):
        use()


@pytest.mark.parametrize('name', LACKING)
def test_what_a_runner_has_no_more_is_an_error_at_once(name):
    for use in LACKING[name]:
        runner = MagicMock()
        delattr(runner, name)
        with pytest.raises(AttributeError, match=rf'\b{name}\b'):
            use(runner)


IMPORT_WITHOUT = """
import os, pkgutil, sys
import mmcv.ops, mmdet.models

for place in sys.argv[1:]:
    if os.fork() == 0:  # each name in a process that has imported mmdet, but nothing of ours
        owner, _, name = place.rpartition('.')
        owner = pkgutil.resolve_name(owner)
        for holder in getattr(owner, '__mro__', [owner]):
            name in vars(holder) and delattr(holder, name)
        try:
            import lesa_mmdet
        except ImportError as error:
            print(place, 'SAID', error, flush=True)
        os._exit(0)
    os.wait()
"""


def test_without_what_is_needed_from_the_start_the_package_does_not_start():
    said = execute(IMPORT_WITHOUT, *('.'.join(place(p)) for p in ON_IMPORT))
    lines = [line for line in said.splitlines() if ' SAID ' in line]
    for private, line in zip(ON_IMPORT, lines, strict=True):
        owner, name = place(private)
        before, _, said = line.partition(' SAID ')
        assert before == f'{owner}.{name}' and name in said
        if private in COMPARED:
            assert f'{owner}.{name} of the installed' in said and private.without in said


@pytest.mark.parametrize('changed', [*(f'def {name}' for name in TOOLS), '    parse_args'])
def test_a_tool_that_is_built_otherwise_is_refused(changed, tmp_path):
    tool, content = tmp_path / 'train.py', 'def parse_args(): ...\ndef main():\n    parse_args()\n'
    tool.write_text(content, encoding='utf-8')
    assert launch._load_tool(tool)['main']
    tool.write_text(content.replace(changed, f'{changed}_anew'), encoding='utf-8')
    with pytest.raises(ImportError, match='is not what lesa_mmdet knows: it has no main'):
        launch._load_tool(tool)


def test_without_a_word_on_hooks_there_is_one_warning(monkeypatch):
    monkeypatch.delattr(torch._C._autograd, '_top_saved_tensors_default_hooks')
    recompute._warn_once.cache_clear()
    x = torch.ones(1, requires_grad=True)
    with pytest.warns(UserWarning, match='does not tell whether hooks .* more memory') as told:
        for _ in range(2):
            with recompute.recomputed([x], list):
                (x * x).backward()
    assert len(told) == 1
    recompute._warn_once.cache_clear()


def test_a_pycocotools_that_opens_otherwise_is_warned_of(monkeypatch):
    monkeypatch.setattr(coco.COCO, '__init__', lambda self, annotation_file=None: None)
    with pytest.warns(UserWarning, match="in the locale's encoding"):
        upstream.open_utf8()


def test_pycocotools_opens_utf8(recwarn):
    upstream.open_utf8()
    assert not recwarn and coco.open.keywords == dict(encoding='utf-8')
