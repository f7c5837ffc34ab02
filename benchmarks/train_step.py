"""Time, peak memory and losses of one training step of a config, on the first of its images.

Everything is as the config says: model, image size, data set, optimizer. Options change it:

    python benchmarks/train_step.py CONFIG --cfg-options model.backbone.init_cfg=None
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from measure import RSS_UNIT, add_json, announce, check_outputs, save
from mmdet.registry import MODELS
from mmengine.config import DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from lesa_mmdet.engine.preflight import check_config
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.configs import load_config


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    add_json(parser)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    check_outputs(args.json)
    cfg = load_config(args.config, args.cfg_options)
    check_config(cfg, 'train')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.indices = 1
    init_default_scope('mmdet')
    torch.manual_seed(0)

    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(args.device).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    images = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    start = time.perf_counter()
    logged = model.train_step(images, optimizer)
    losses = {name: round(value.item(), 4) for name, value in logged.items()}
    seconds = time.perf_counter() - start
    if args.device == 'cuda':
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT  # PyTorch itself, too

    about = announce(args.device)
    print(f'{args.config}: image {tuple(images["inputs"][0].shape[1:])}, one training step')
    print(f'{seconds:.1f} s, {peak / 2**20:.0f} MiB, losses {losses}')
    result = dict(seconds=round(seconds, 1), mib=round(peak / 2**20))
    save(
        args.json,
        f'train_step-{Path(args.config).stem}',
        about,
        [dict(config=args.config, result=result)],
    )


if __name__ == '__main__':
    main()
