"""Time and peak memory of one training step of a detector: convolution and LESA, dense and exact.

Images and targets are random; the step is forward, losses, backward and SGD, batch 1:

    python benchmarks/detector.py --models mask-rcnn htc --sizes 1024 1280
"""

from collections.abc import Callable

import torch
from measure import announce, check_outputs, compare, make_parser, measure_training, save
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from torch.optim import SGD, Optimizer

from lesa_mmdet.utils.command import command

# Config of mmdet, our backbone in it.
DETECTORS = {
    'mask-rcnn': ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'LESA_ResNet'),
    'htc': ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'LESA_WRN'),
}
BACKBONES = {
    'conv': None,
    'lesa': dict(type='LESA', backend='auto'),
    'lesa-reference': dict(type='LESA', backend='reference'),
}


def build(model: str, size: int, backbone: str, device: str) -> tuple[Optimizer, Callable]:
    """A detector's optimizer, and what computes its loss."""
    init_default_scope('mmdet')
    config, kind = DETECTORS[model]
    cfg = get_config(config).model
    cfg.backbone.update(
        type=kind, operator=BACKBONES[backbone], input_size=(size, size), init_cfg=None
    )
    detector = MODELS.build(cfg).to(device).train()
    optimizer = SGD(detector.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    data = demo_mm_inputs(
        1, (3, size, size), num_items=[10], num_classes=80, with_mask=True, device=device,
        with_semantic=model == 'htc', sem_seg_output_strides=8,
    )  # fmt: skip
    data = detector.data_preprocessor(data, training=True)

    def compute_loss() -> torch.Tensor:
        loss, _ = detector.parse_losses(detector(**data, mode='loss'))
        return loss

    return optimizer, compute_loss


def figures(result: dict) -> str:
    """Time and memory of a step."""
    return f'{result["seconds"]:8.2f} s {result["mib"]:7.0f} MiB'


@command
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument('--models', nargs='+', choices=DETECTORS, default=['mask-rcnn'])
    parser.add_argument('--sizes', nargs='+', type=int, default=[1024], help='image sides')
    parser.add_argument('--backbones', nargs='+', choices=BACKBONES, default=list(BACKBONES))
    args = parser.parse_args()

    check_outputs(args.json)
    about = announce(args.device)
    records = []
    for model in args.models:
        for size in args.sizes:
            print(f'\n{model}, {size} x {size}, batch 1, one training step')
            how = (measure_training, args.device, args.seconds, build)
            cases = {name: (*how, model, size, name) for name in args.backbones}
            for name, result in compare(cases, figures).items():
                records.append(dict(model=model, size=size, backbone=name, result=result))
    save(args.json, 'detector', about, records)


if __name__ == '__main__':
    main()
