"""Text is UTF-8 wherever it is read or written, also where the locale's encoding is another."""

import ast
import json
import os
import subprocess
import sys

import pytest

from lesa_mmdet.datasets.shapes import CLASSES, generate

from helpers.paths import ROOT

# ASCII is what Python takes in the locale C, if its UTF-8 mode and its own way out are off.
C_LOCALE = {**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
NAMES = [f'{name} 三角 é' for name in CLASSES]

# The check, the data set and the metric of a config: the categories that each of them reads.
READ = """
import json, locale, sys
from mmengine.registry import init_default_scope
import lesa_mmdet
from lesa_mmdet.datasets.check import check_dataset
from lesa_mmdet.upstream import DATASETS, METRICS

root, names = sys.argv[1], json.loads(sys.argv[2])
init_default_scope('mmdet')
data = dict(data_root=f'{root}/', ann_file='annotations/train.json', metainfo=dict(classes=names))
read = dict(encoding=locale.getpreferredencoding())
for name in ('CheckedCocoDataset', 'CocoDataset'):
    built = DATASETS.build(dict(type=name, data_prefix=dict(img='train/'), **data))
    read[name] = len(built.cat_ids)  # the classes that it has found by their names
metric = METRICS.build(dict(type='CocoMetric', ann_file=f'{root}/annotations/train.json'))
read['CocoMetric'] = [cat['name'] for cat in metric._coco_api.dataset['categories']]
read['problems'] = [str(problem) for problem in check_dataset(root).problems]
print('READ', json.dumps(read))
"""


def text_calls(path):
    """Calls of a file that read or write text and say nothing of its encoding, by their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call) or any(k.arg == 'encoding' for k in node.keywords):
            continue
        name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        is_method = isinstance(node.func, ast.Attribute)
        if name == 'read_text' and not node.args or name == 'write_text' and len(node.args) == 1:
            yield node.lineno
        elif name == 'open' and is_method and any(str(m) in ('r', 'w', 'a', 'x') for m in modes):
            yield node.lineno
        elif any(k.arg in ('text', 'universal_newlines') for k in node.keywords):
            yield node.lineno


def test_the_encoding_is_named_everywhere():
    tops = ('lesa_mmdet', 'tools', 'benchmarks', 'tests', 'docs', 'examples')
    files = [path for top in tops for path in (ROOT / top).rglob('*.py')]
    silent = {f'{path.relative_to(ROOT)}:{line}' for path in files for line in text_calls(path)}
    assert len(files) > 200 and silent == set()


def run_in_the_locale_c(*arguments):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *arguments],
        cwd=ROOT,
        env=C_LOCALE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf-8',
    )


@pytest.fixture
def data(tmp_path):
    """Generated images whose categories have names in other scripts, and whose folder has, too."""
    root = generate(tmp_path / 'データ', num_train=2, num_val=1, image_size=64)
    for split in ('train', 'val'):
        path = root / 'annotations' / f'{split}.json'
        content = json.loads(path.read_text(encoding='utf-8'))
        for category, name in zip(content['categories'], NAMES, strict=True):
            category['name'] = name
        text = json.dumps(content, ensure_ascii=False)
        path.write_text(text, encoding='utf-8')
        path.with_name(f'instances_{split}.json').write_text(text, encoding='utf-8')
    return root


def test_annotations_are_read_in_the_locale_c(data):
    result = run_in_the_locale_c('-c', READ, data, json.dumps(NAMES))
    assert result.returncode == 0, result.stdout
    read = json.loads(result.stdout.rpartition('READ')[2])
    assert read.pop('encoding') not in ('utf-8', 'UTF-8')
    assert read == {
        'CheckedCocoDataset': len(NAMES),
        'CocoDataset': len(NAMES),
        'CocoMetric': NAMES,
        'problems': [],
    }


def test_a_command_prints_what_the_terminal_cannot_show(data):
    path = data / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text(encoding='utf-8'))
    content['annotations'][0]['category_id'] = 99
    content['categories'][1]['name'] = content['categories'][0]['name']
    path.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
    result = run_in_the_locale_c(ROOT / 'tools' / 'check_dataset.py', data)
    assert 'Traceback' not in result.stdout and result.returncode == 1
    assert '\\u4e09' in result.stdout


def test_a_name_that_the_locale_has_no_file_for_is_a_sentence(data, tmp_path):
    """Folders are named after classes."""
    tool = ROOT / 'tools' / 'crop_coco.py'
    splits = (f'--split {s} annotations/{s}.json {s}'.split() for s in ('train', 'val'))
    options = [*sum(splits, []), '--min-size', '1', '--classes', '1']
    result = run_in_the_locale_c(tool, data, tmp_path / 'out', *options)
    assert 'Traceback' not in result.stdout and result.returncode == 1
    last = result.stdout.splitlines()[-1]
    assert last.startswith('error: ') and 'set LC_ALL=C.UTF-8, or PYTHONUTF8=1' in last


def test_arguments_that_the_locale_cannot_decode_are_drawn(tmp_path):
    log = tmp_path / 'run' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"coco/bbox_mAP": 0.5, "step": 1}', encoding='utf-8')
    tool, out = ROOT / 'tools' / 'plot_curves.py', tmp_path / '図.png'
    result = run_in_the_locale_c(tool, tmp_path, '--labels', '曲線', '--out', out)
    assert result.returncode == 0, result.stdout
    assert out.read_bytes()[:4] == b'\x89PNG'
