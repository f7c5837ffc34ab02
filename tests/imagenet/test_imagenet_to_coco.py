"""Pre-train through the tools, go on in a detector."""

import json
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from lesa_mmdet.attention import fit_table
from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.datasets.shapes import generate
from lesa_mmdet.visualization.curves import read_scalars

from helpers.classifiers import load, options
from helpers.paths import DEMO
from helpers.training import printed_metrics

pytestmark = pytest.mark.slow

DETECTOR = DEMO
EPOCHS, ITERATIONS = 2, 4


@pytest.fixture
def small_config(image_folder, tmp_path):
    """Write a config for a few iterations on small images."""

    def write(name, **changes):
        cfg = load(f'{name}_4xb32_in1k')
        cfg.merge_from_dict({**options(image_folder), **changes})
        cfg.train_cfg.max_epochs = EPOCHS
        cfg.default_hooks.logger.interval = 1
        cfg.dump(tmp_path / f'{name}.py')
        return tmp_path / f'{name}.py'

    return write


def losses_of(work_dir):
    losses = [entry['loss'] for entry in read_scalars(work_dir) if 'loss' in entry]
    assert all(map(math.isfinite, losses))
    return losses


def test_train_resume_and_test(small_config, run, tmp_path):
    config, whole, parts = small_config('lesa-resnet50'), tmp_path / 'whole', tmp_path / 'parts'
    command = ('tools/train.py', config, '--auto-scale-lr', '--work-dir')
    out = run(*command, whole, '--cfg-options', 'randomness.seed=1')
    assert f'Scaling the original LR by {6 / 128}' in out
    assert len(losses_of(whole)) == EPOCHS * ITERATIONS
    out = run(*command, parts, '--resume', whole / 'epoch_1.pth')
    assert f'resumed epoch: 1, iter: {ITERATIONS}' in out
    assert losses_of(parts) == losses_of(whole)[ITERATIONS:]

    checkpoint = whole / f'epoch_{EPOCHS}.pth'
    run('tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'test')
    tested = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text(encoding='utf-8'))
    trained = [entry for entry in read_scalars(whole) if 'accuracy/top1' in entry][-1]
    assert tested['accuracy/top1'] == trained['accuracy/top1']

    # A file of other names says so, rather than evaluating random weights.
    other = small_config('sa-resnet50')
    out = run('tools/test.py', other, checkpoint, succeeds=False)
    assert 'it looks like one of LESA with flattened positions, not of self-attention' in out


def test_amp_is_mmpretrains(small_config, run, tmp_path):
    command = ('tools/train.py', small_config('lesa-resnet50'), '--work-dir', tmp_path, '--amp')
    out = run(*command, succeeds=torch.cuda.is_available())
    if not torch.cuda.is_available():
        assert 'is only available training on gpu' in out


def test_two_processes_train_and_test(small_config, run, port, tmp_path):
    config = small_config('lesa-resnet50-decomposed')
    out = run('tools/dist_train.sh', config, 2, '--work-dir', tmp_path / 'two', PORT=port)
    assert 'GPU number: 2' in out
    assert len(losses_of(tmp_path / 'two')) == EPOCHS * ITERATIONS // 2
    trained = [entry for entry in read_scalars(tmp_path / 'two') if 'accuracy/top1' in entry][-1]
    checkpoint = tmp_path / 'two' / 'epoch_2.pth'
    for tool, *processes in (['tools/test.py'], ['tools/dist_test.sh', 2]):
        command = (tool, config, checkpoint, *processes, '--work-dir', tmp_path / 'test')
        tested = printed_metrics(run(*command, PORT=port))
        assert tested['accuracy/top1'] == pytest.approx(trained['accuracy/top1'], abs=1e-4)


@pytest.mark.parametrize('name', ['lesa-resnet50', 'lesa-resnet50-decomposed'])
def test_from_imagenet_to_a_detector(name, small_config, run, tmp_path):
    pretraining = small_config(name, param_scheduler=[])  # no warm-up: the weights have to move
    run('tools/train.py', pretraining, '--work-dir', tmp_path / 'pretrain')
    checkpoint = tmp_path / 'pretrain' / f'epoch_{EPOCHS}.pth'
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')
    config = tmp_path / 'detector.py'
    config.write_text(
        f'_base_ = {str(DETECTOR)!r}\n'
        f'model = dict(backbone=dict(init_cfg=dict(_delete_=True, **{init_cfg!r})))\n',
        encoding='utf-8',
    )
    compare(config, checkpoint, fresh_tables=not name.endswith('-decomposed'))

    root = generate(tmp_path / 'shapes', num_train=4, num_val=2)
    data = [f'{split}_dataloader.dataset.data_root={root}/' for split in ('train', 'val', 'test')]
    data += [f'val_evaluator.ann_file={root}/annotations/val.json']
    data += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    data += ['default_hooks.logger.interval=1']
    out = run('tools/train.py', config, '--work-dir', tmp_path / 'detector', '--cfg-options', *data)
    assert f'load backbone. in model from: {checkpoint}' in out
    assert len(losses_of(tmp_path / 'detector')) == 1
    assert 'coco/bbox_mAP' in read_scalars(tmp_path / 'detector')[-1]


def compare(config, checkpoint, fresh_tables):
    """Every weight of the backbone is that of the checkpoint; tables as said."""
    from mmdet.registry import MODELS

    state = read_checkpoint(checkpoint)['state_dict']
    source = {
        key.removeprefix('backbone.'): value
        for key, value in state.items()
        if key.startswith('backbone.')
    }
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(Config.fromfile(config).model)
    fresh = {key: value.clone() for key, value in detector.backbone.state_dict().items()}
    detector.init_weights()
    for key, value in detector.backbone.state_dict().items():
        if key.endswith(('context.height', 'context.width')):
            assert (key not in source) == fresh_tables
            places = (len(value) + 1) // 2
            assert places in (5, 10)  # of maps of 10 x 10, 4 x 4 in pre-training
            if fresh_tables:  # drawn anew
                assert 0 < value.std() < 2 * value.shape[1] ** -0.5, key
                continue
            expected = fit_table(source[key], places)
        elif fresh_tables and value.dim() and 'similarity_norm' in key:
            expected = torch.cat((source[key][:8], fresh[key][8:]))  # content, then positions
        elif fresh_tables and value.dim() and 'output_norm' in key:
            expected = source[key][::2]  # values, without their embeddings
        else:
            expected = source[key]
            # Otherwise the comparison says little. The bias has no gradient.
            assert key.endswith('similarity_norm.bias') or not torch.equal(expected, fresh[key])
        assert torch.equal(value, expected), key
    unused = [key for key in source if key not in fresh]
    assert all(fresh_tables and key.endswith('context.relative') for key in unused)
