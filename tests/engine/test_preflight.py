import pytest
from mmengine.config import Config

from lesa_mmdet.engine import preflight

from helpers.paths import ROOT

CONFIG = 'configs/mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'


@pytest.fixture
def cfg(tmp_path):
    """The config with its data and its checkpoint in place."""
    cfg = Config.fromfile(ROOT / CONFIG)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(tmp_path)
        (tmp_path / dataset.data_prefix.img).mkdir(exist_ok=True)
        (tmp_path / dataset.ann_file).parent.mkdir(exist_ok=True)
        (tmp_path / dataset.ann_file).touch()
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(tmp_path / dataset.ann_file)
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'backbone.pth')
    (tmp_path / 'backbone.pth').touch()
    return cfg


def test_nothing_missing(cfg):
    preflight.check_files(cfg, 'train')
    preflight.check_files(cfg, 'test')


@pytest.mark.parametrize(
    'missing, message',
    [
        ('annotations/instances_train2017.json', 'annotation file of train_dataloader: .*get COCO'),
        ('annotations/instances_val2017.json', 'annotation file of val_dataloader: .*get COCO'),
        ('train2017', 'img folder of train_dataloader: .*get COCO'),
        ('backbone.pth', 'pre-trained checkpoint: .*get the pre-trained backbones from'),
    ],
)
def test_missing_files_are_named_with_where_to_get_them(cfg, missing, message, tmp_path):
    path = tmp_path / missing
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message) as error:
        preflight.check_files(cfg, 'train')
    assert str(path) in str(error.value)


def test_wrapped_data_sets_and_remote_checkpoints(cfg):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    cfg.model.backbone.init_cfg.checkpoint = 'torchvision://resnet50'
    preflight.check_files(cfg, 'train')
    inner.ann_file = 'gone.json'
    cfg.train_dataloader.dataset.dataset.ann_file = 'gone.json'
    with pytest.raises(FileNotFoundError, match='gone.json'):
        preflight.check_files(cfg, 'train')


@pytest.mark.parametrize('arguments', [('tools/train.py',), ('tools/test.py', 'checkpoint.pth')])
def test_one_sentence_before_anything_is_built(arguments, run, tmp_path):
    tool, *rest = arguments
    options = [f'{split}_dataloader.dataset.data_root=x' for split in ('train', 'test')]
    out = run(
        tool, CONFIG, *rest, '--work-dir', tmp_path, '--cfg-options', *options, succeeds=False
    )
    assert out.splitlines()[-1].startswith('error: annotation file of')
    assert 'Traceback' not in out


def test_missing_checkpoint(cfg, run, tmp_path):
    cfg.dump(tmp_path / 'config.py')
    out = run('tools/test.py', tmp_path / 'config.py', tmp_path / 'gone.pth', succeeds=False)
    assert f'error: checkpoint: {tmp_path}/gone.pth does not exist; train one' in out
