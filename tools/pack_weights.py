"""Write a trained model as float16, with what it reaches so and how it came about in its meta.

    python tools/pack_weights.py CONFIG CHECKPOINT OUT --command 'python tools/train.py CONFIG'

The model is evaluated by its config after its weights have been rounded.
"""

import datetime
from argparse import ArgumentParser
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.paths import check_output


@command
def main() -> None:
    parser = ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('out', type=Path)
    parser.add_argument('--command', required=True, help='what trained it')
    parser.add_argument('--commit', required=True, help='at which commit')
    args = parser.parse_args()
    check_output(args.out, 'OUT', ('.pth',))

    trained = read_checkpoint(args.checkpoint)
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in trained['state_dict'].items()
    }
    about = {key: trained['meta'][key] for key in ('dataset_meta', 'epoch', 'iter')}
    about.update(
        config_file=Path(args.config).name,
        command=args.command,
        commit=args.commit,
        date=datetime.date.today().isoformat(),
        torch=str(torch.__version__),
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=about, state_dict=weights), args.out)
    about['figures'] = evaluate(args.config, args.out)
    torch.save(dict(meta=about, state_dict=weights), args.out)
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB, {about}')


def evaluate(config: str, checkpoint: Path) -> dict[str, float]:
    """The metrics of a checkpoint by the test of its config."""
    cfg = Config.fromfile(config)
    cfg.load_from = str(checkpoint)
    cfg.work_dir = str(Path('work_dirs') / 'pack_weights')
    return {name: float(value) for name, value in Runner.from_cfg(cfg).test().items()}


if __name__ == '__main__':
    main()
