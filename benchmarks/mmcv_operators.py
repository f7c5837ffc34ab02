"""A training step with torchvision's operators against one with mmcv's compiled ones, by turns.

It needs an environment that has both: mmcv compiled, and a torchvision that fits its torch. Images
and objects are random, weights too, and the learning rate is zero, so that all steps do the same.
"""

import statistics
import sys
import time
from types import ModuleType

import torch
from measure import announce, make_parser, save
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from lesa_mmdet import config_path
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.configs import load_config
from lesa_mmdet.utils.errors import UserValueError

# By name: config, images of a step, their size.
CASES = {
    'demo': ('demo/mask-rcnn_lesa-r50-narrow_fpn_1xb8-8e_shapes-160', 4, 160),
    'mask-rcnn': ('mask_rcnn/mask-rcnn_lesa-r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024', 1, 512),
    'htc': ('htc/htc_lesa-r50_fpn_4xb1-1x_coco-1024', 1, 512),
}


@command
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--steps', type=int, default=5, help='of each, after one that is left out')
    args = parser.parse_args()
    operators = find_operators()
    about = announce(args.device)
    records = []
    for name in args.cases:
        seconds = measure(name, operators, args.steps, args.device)
        medians = {whose: round(statistics.median(each), 3) for whose, each in seconds.items()}
        ratio = round(medians['torchvision'] / medians['mmcv'], 3)
        each = {whose: [round(one, 3) for one in of_all] for whose, of_all in seconds.items()}
        print(f'{name}: processor seconds, median {medians}, ratio {ratio}, all {each}', flush=True)
        records.append(dict(case=name, result=dict(**medians, ratio=ratio, all=each)))
    save(args.json, 'mmcv_operators', about, records)


def find_operators() -> dict[str, ModuleType]:
    """What mmcv can compute with, by whose it is."""
    import mmcv._ext as compiled

    if compiled.__file__.endswith('.py'):
        raise UserValueError(f'{sys.executable} has no mmcv that was compiled with its operators')
    try:
        import mmcv_torchvision
    except ImportError as error:
        raise UserValueError(
            f"{sys.executable} has no operators of torchvision's ({error}): "
            'pip install torchvision ./mmcv_torchvision'
        ) from error
    return dict(mmcv=compiled, torchvision=mmcv_torchvision)


def measure(
    name: str, operators: dict[str, ModuleType], steps: int, device: str
) -> dict[str, list[float]]:
    """Processor seconds of training steps, by whose operators they were computed with."""
    config, images, size = CASES[name]
    cfg = load_config(config_path(config))
    cfg.model.backbone.init_cfg = None
    if name == 'htc':  # the random objects have no semantic map
        cfg.model.roi_head.update(semantic_head=None, semantic_roi_extractor=None)
    cfg.optim_wrapper.optimizer.lr = 0
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device).train()
    model.init_weights()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    shapes, objects = [(3, size, size)] * images, [5] * images
    classes = cfg.model.roi_head.bbox_head
    classes = (classes[0] if isinstance(classes, list) else classes).num_classes
    seconds = {whose: [] for whose in operators}
    for step in range(steps + 1):
        for whose, module in operators.items():
            inputs = demo_mm_inputs(
                images, shapes, num_items=objects, num_classes=classes, with_mask=True
            )
            take(module)
            torch.manual_seed(step)
            start = time.process_time()
            model.train_step(inputs, optimizer)
            if step:
                seconds[whose].append(time.process_time() - start)
    return seconds


def take(operators: ModuleType) -> None:
    """Let mmcv compute with these."""
    for name, module in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
            module.ext_module = operators


if __name__ == '__main__':
    main()
