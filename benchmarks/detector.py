"""Time and peak memory of one training step of a detector: convolution and LESA, dense and exact.

Images and targets are random; the step is forward, losses, backward and SGD, batch 1:

    python benchmarks/detector.py --models mask-rcnn htc --sizes 1024 1280 --json detector.json
"""

import argparse

import torch
from measure import Meter, check_outputs, in_own_process, machine, ratios, save
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from lesa_mmdet.command import command

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


def run(model: str, size: int, backbone: str, device: str, seconds: float) -> dict:
    """Measure the training step of a detector, in this process."""
    meter = Meter(device, seconds)
    torch.manual_seed(0)
    init_default_scope('mmdet')
    config, kind = DETECTORS[model]
    cfg = get_config(config).model
    cfg.backbone.update(
        type=kind, operator=BACKBONES[backbone], input_size=(size, size), init_cfg=None
    )
    detector = MODELS.build(cfg).to(device).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    data = demo_mm_inputs(
        1, (3, size, size), num_items=[10], num_classes=80, with_mask=True, device=device,
        with_semantic=model == 'htc', sem_seg_output_strides=8,
    )  # fmt: skip
    data = detector.data_preprocessor(data, training=True)

    def train() -> None:
        loss, _ = detector.parse_losses(detector(**data, mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # as mmengine does: a forward pass finds no gradients in memory

    return meter(train)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--models', nargs='+', choices=DETECTORS, default=['mask-rcnn'])
    parser.add_argument('--sizes', nargs='+', type=int, default=[1024], help='image sides')
    parser.add_argument('--backbones', nargs='+', choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument('--seconds', type=float, default=5, help='time to repeat each step for')
    parser.add_argument('--json', help='file for all figures')
    args = parser.parse_args()

    check_outputs(args.json)
    about = machine(args.device)
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    records = []
    for model in args.models:
        for size in args.sizes:
            print(f'\n{model}, {size} x {size}, batch 1, one training step')
            base = None
            for backbone in args.backbones:
                result = in_own_process(run, model, size, backbone, args.device, args.seconds)
                records.append(dict(model=model, size=size, backbone=backbone, result=result))
                line = f'  {backbone:<15}'
                if 'error' in result:
                    print(line, result['error'], flush=True)
                    continue
                base = base or result
                figures = f'{result["seconds"]:8.2f} s {result["mib"]:7.0f} MiB'
                print(line, figures, ' ', ratios(result, base), flush=True)
    save(args.json, about, records)


if __name__ == '__main__':
    main()
