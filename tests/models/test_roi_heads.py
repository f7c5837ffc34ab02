"""What HTC and Cascade of the paper compute where mmdet 3 computes something else."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs, demo_mm_proposals
from mmengine.structures import InstanceData

import lesa_mmdet  # noqa: F401

from helpers.backbones import mmdet_scope  # noqa: F401
from helpers.configs import load, shrink

HTC = 'htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280'
WITHOUT_SEMANTIC = f'htc-without-semantic_{HTC.partition("_")[2]}'
CASCADE = 'cascade-mask-rcnn_lesa-r50_fpn_8xb1-1x_coco'


def build_roi_head(name, small=True, **changes):
    cfg = load(name)
    model = (shrink(cfg) if small else cfg).model
    cfg = dict(model.roi_head, train_cfg=model.train_cfg.rcnn, test_cfg=model.test_cfg.rcnn)
    torch.manual_seed(0)
    return MODELS.build(dict(cfg, **changes)).eval()


def pyramid(channels, size=64):
    torch.manual_seed(1)
    return tuple(torch.randn(1, channels, size // s, size // s) for s in (4, 8, 16, 32, 64))


@pytest.mark.parametrize('name', [HTC, WITHOUT_SEMANTIC])
@pytest.mark.parametrize('mask_info_flow', [True, False])
def test_predicted_masks_are_the_mean_of_all_stages(name, mask_info_flow):
    head = build_roi_head(name, mask_info_flow=mask_info_flow)
    x = pyramid(head.mask_head[0].in_channels)
    semantic = head.semantic_head(x)[1] if head.with_semantic else None
    rois = torch.tensor([[0, 4.0, 4, 40, 30], [0, 10, 20, 50, 60]])

    def of_stage(stage):  # as in training
        if mask_info_flow or stage == 0:
            return head._mask_forward(stage, x, rois, semantic)['mask_preds']
        other = copy.deepcopy(head)
        other.mask_head[0] = other.mask_head[stage]
        return other._mask_forward(0, x, rois, semantic)['mask_preds']

    stages = [of_stage(stage) for stage in range(3)]
    predicted = head._mask_forward(-1, x, rois, semantic, training=False)['mask_preds']
    for stage, actual in zip(stages, predicted, strict=True):
        torch.testing.assert_close(actual, stage)

    detections = InstanceData(bboxes=rois[:, 1:], labels=torch.tensor([1, 3]), scores=torch.ones(2))
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
    merged = []
    head.mask_head[-1].predict_by_feat = lambda mask_preds, **_: merged.extend(mask_preds)
    head.predict_mask(x, semantic, [meta], [detections])
    expected = torch.stack([stage.sigmoid() for stage in stages]).mean(0)
    torch.testing.assert_close(merged[0], expected)
    assert (expected - stages[-1].sigmoid()).abs().max() > 1e-3  # what mmdet 3 would predict


def test_no_detection_has_no_masks():
    head = build_roi_head(HTC)
    nothing = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long), scores=torch.zeros(0)
    )
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
    x = pyramid(head.mask_head[0].in_channels)
    (result,) = head.predict_mask(x, head.semantic_head(x)[1], [meta], [nothing])
    assert len(result.masks) == 0


@pytest.mark.parametrize('name', [HTC, CASCADE])
def test_mask_heads_start_as_those_of_mask_rcnn(name):
    head = build_roi_head(name, small=False)
    head.init_weights()
    for mask_head in head.mask_head:
        assert mask_head.upsample.weight.std().item() == pytest.approx(0.0442, rel=0.02)
        assert mask_head.conv_logits.weight.std().item() == pytest.approx(0.158, rel=0.03)
        assert not mask_head.upsample.bias.any() and not mask_head.conv_logits.bias.any()


def test_semantic_loss_is_the_mean_over_labelled_pixels():
    head = build_roi_head(HTC).semantic_head
    logits = torch.randn(1, 183, 4, 4)
    labels = torch.randint(0, 183, (1, 1, 32, 32))
    labels[..., 8:] = 255  # a quarter is labelled
    loss = head.loss(logits, labels)
    of_labelled = labels[0, 0, ::8, 0]
    expected = torch.nn.functional.cross_entropy(logits[0, :, :, 0].T, of_labelled)
    torch.testing.assert_close(loss, 0.2 * expected)


@pytest.mark.parametrize('name', [HTC, 'mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024'])
@pytest.mark.parametrize('phase', ['train', 'test'])
def test_proposals_without_an_area_survive(name, phase):
    model = shrink(load(name)).model
    head = MODELS.build(
        dict(model.rpn_head, train_cfg=model.train_cfg.rpn, test_cfg=model.test_cfg.rpn)
    )
    cfg = model.train_cfg.rpn_proposal if phase == 'train' else model.test_cfg.rpn
    boxes = torch.tensor([[0.0, 0, 20, 20], [64, 10, 64, 30], [5, 5, 30, 5]])
    results = InstanceData(
        bboxes=boxes, scores=torch.tensor([0.9, 0.8, 0.7]), level_ids=torch.zeros(3).long()
    )
    kept = head._bbox_post_process(results, cfg, img_meta=dict(img_shape=(64, 64)))
    torch.testing.assert_close(kept.bboxes, boxes)


def test_whole_detector_predicts_and_learns():
    """Proposals without an area go through every stage: losses and masks stay finite."""
    head = build_roi_head(HTC)
    inputs = demo_mm_inputs(1, [(3, 64, 64)], num_items=[2], with_mask=True, with_semantic=True)
    samples: list[DetDataSample] = inputs['data_samples']
    (proposals,) = demo_mm_proposals([(3, 64, 64)], 20)
    proposals.bboxes[:4, 2] = proposals.bboxes[:4, 0]
    x = pyramid(head.mask_head[0].in_channels)
    losses = head.loss(x, [proposals], samples)
    assert losses and all(torch.isfinite(value).all() for value in losses.values())
