"""What users get wrong with configs."""

import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs

from lesa_mmdet.engine import launch, preflight

from helpers.configs import load
from helpers.paths import ROOT

HTC = 'htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280'
WITHOUT_SEMANTIC = f'htc-without-semantic_{HTC.partition("_")[2]}'


def put_data(name, tmp_path):
    """A config with every file that it names, all of them empty."""
    cfg = load(name)
    for loader in ('train_dataloader', 'val_dataloader'):
        dataset = cfg[loader].dataset
        dataset.data_root = str(tmp_path)
        (tmp_path / dataset.ann_file).parent.mkdir(exist_ok=True)
        (tmp_path / dataset.ann_file).touch()
        for folder in dataset.data_prefix.values():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    cfg.val_evaluator.ann_file = str(tmp_path / dataset.ann_file)
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'backbone.pth')
    (tmp_path / 'backbone.pth').touch()
    return cfg


def test_missing_stuffthingmaps(tmp_path):
    cfg = put_data(HTC, tmp_path)
    preflight.check_files(cfg, 'train')
    (tmp_path / 'stuffthingmaps' / 'train2017').rmdir()
    with pytest.raises(FileNotFoundError) as error:
        preflight.check_files(cfg, 'train')
    message = str(error.value)
    assert message.startswith(
        f'seg folder of train_dataloader: {tmp_path}/stuffthingmaps/train2017'
    )
    assert 'tools/download_coco.py --parts stuff' in message
    assert message.endswith(f'needs none: configs/htc/{WITHOUT_SEMANTIC}.py')
    assert (ROOT / message.rpartition(' ')[2]).is_file()


def test_the_config_without_the_semantic_branch_needs_no_maps(tmp_path):
    cfg = put_data(WITHOUT_SEMANTIC, tmp_path)
    assert not (tmp_path / 'stuffthingmaps').exists()
    preflight.check_files(cfg, 'train')


def test_missing_checkpoint_of_self_attention(tmp_path):
    cfg = put_data('mask-rcnn_sa-r50_fpn_8xb1-1x_coco-1024', tmp_path)
    cfg.model.backbone.init_cfg.checkpoint = 'checkpoints/sa_resnet50_imagenet.pth'
    with pytest.raises(FileNotFoundError, match='self-attention was released: pre-train your own'):
        preflight.check_files(cfg, 'train')


@pytest.mark.parametrize(
    'base', ['./missing.py', ['mmdet::_base_/default_runtime.py', 'mmdet::_base_/missing.py']]
)
def test_missing_base(base, monkeypatch, tmp_path):
    (tmp_path / 'middle.py').write_text(f'_base_ = {base!r}\n', encoding='utf-8')
    config = tmp_path / 'config.py'
    config.write_text("_base_ = './middle.py'\n", encoding='utf-8')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(config)])
    with pytest.raises(
        SystemExit,
        match=rf'^error: {config}: a config in its _base_, .*does not exist: .*missing\.py',
    ):
        launch.run_tool('train')


@pytest.mark.parametrize('size, padded', [((96, 96), (96, 96)), ((100, 70), (128, 96))])
def test_size_that_is_no_multiple_of_32_is_padded(size, padded):
    model = load('mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024').model
    inputs = demo_mm_inputs(1, [(3, *size)], num_items=[1], with_mask=True)
    data = MODELS.build(model.data_preprocessor)(inputs, training=True)
    assert data['inputs'].shape == (1, 3, *padded)
    image = torch.zeros(padded, dtype=bool)
    image[: size[0], : size[1]] = True
    assert (data['inputs'][0, :, ~image] == 0).all()  # the mean color
    (sample,) = data['data_samples']
    assert sample.img_shape == size and sample.batch_input_shape == padded
