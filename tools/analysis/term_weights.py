"""What the terms of LESA or self-attention weigh in a model's test images, layer by layer.

``--ablate-unary`` evaluates the model twice as well, the second time without what each position
gives itself in the softmax of the context term.
"""

import json
from argparse import ArgumentParser, Namespace
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, EVALUATOR
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lesa_mmdet.analysis.weights import TermWeights, ablated, with_mean
from lesa_mmdet.apis.load import load_model
from lesa_mmdet.engine.preflight import check_config
from lesa_mmdet.upstream import CocoMetric
from lesa_mmdet.utils.command import add_model_options, command
from lesa_mmdet.utils.configs import load_config
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.paths import check_output
from lesa_mmdet.visualization.bars import plot_shares
from lesa_mmdet.visualization.curves import PICTURES


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--num-images', type=int, help='of each data set; default: all')
    parser.add_argument('--ablate-unary', action='store_true')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers')
    parser.add_argument('--plot', type=Path, metavar='PNG', help='draw them')
    add_model_options(parser)
    args = parser.parse_args()
    if args.json:
        check_output(args.json, '--json', ('.json',))
    if args.plot:
        check_output(args.plot, '--plot', PICTURES)
    result = measure(args)
    report(result)
    for path in filter(None, (args.json, args.plot)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    if args.plot:
        plot_shares(result['shares'], args.plot, Path(args.config).stem)


def measure(args: Namespace) -> dict:
    """Run the test images.

    Returns:
        dict: ``shares`` of the terms, by layer and their mean; with ``--ablate-unary`` the
        ``metrics`` ``whole`` and ``without_unary``; and what they were measured with.
    """
    cfg = load_config(args.config, args.cfg_options)
    check_config(cfg, 'test')
    model = load_model(cfg, args.checkpoint, args.device)
    weights = TermWeights(model)
    loader = build_loader(model.cfg, args.num_images)
    evaluator = build_evaluator(model.cfg, loader.dataset) if args.ablate_unary else None
    with weights:
        whole = run(model, loader, evaluator)
    result = dict(
        config=args.config,
        checkpoint=args.checkpoint,
        num_images=len(loader.dataset),
        shares=with_mean(weights.unary()),
    )
    if evaluator:
        with ablated(model):
            result['metrics'] = dict(whole=whole, without_unary=run(model, loader, evaluator))
    return result


def build_loader(cfg: Config, num_images: int | None) -> DataLoader:
    """The config's test images, or some of them, evenly spread over each of its data sets.

    Raises:
        ValueError: If num_images is not positive.
    """
    if num_images is None:
        return Runner.build_dataloader(cfg.test_dataloader)
    if num_images < 1:
        raise UserValueError(f'--num-images has to be at least 1, got {num_images}')
    loader = deepcopy(cfg.test_dataloader)
    for dataset in loader.dataset.get('datasets', [loader.dataset]):
        length = len(DATASETS.build(dataset))
        spread = np.linspace(0, length - 1, min(num_images, length))
        dataset.indices = spread.astype(int).tolist()
    return Runner.build_dataloader(loader)


def build_evaluator(cfg: Config, dataset: Dataset) -> Evaluator:
    """The config's metrics, of the images of a data set alone."""
    cfg = cfg.test_evaluator
    is_evaluator = 'metrics' in cfg
    evaluator = EVALUATOR.build({'type': 'Evaluator', **cfg}) if is_evaluator else Evaluator(cfg)
    evaluator.dataset_meta = dataset.metainfo
    for metric in evaluator.metrics:
        if isinstance(metric, CocoMetric):  # to it, images that are not run have no detections
            metric.img_ids = [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]
    return evaluator


@torch.no_grad()
def run(model: nn.Module, loader: DataLoader, evaluator: Evaluator | None) -> dict[str, float]:
    """Run a model on images; the metrics, if an evaluator is given."""
    for batch in tqdm(loader, desc='images', unit='batch'):
        samples = model.test_step(batch)
        if evaluator:
            evaluator.process(samples, batch)
    return evaluator.evaluate(len(loader.dataset)) if evaluator else {}


def report(result: dict) -> None:
    """Print what was measured."""
    print(f'\nweight of the terms, mean over {result["num_images"]} images')
    print(f'{"layer":12}{"unary":>8}{"binary":>8}')
    for name, share in result['shares'].items():
        print(f'{name:12}{share["unary"]:8.1%}{share["binary"]:8.1%}')
    if 'metrics' in result:
        whole, without = result['metrics'].values()
        print(f'\n{"metric":24}{"whole":>10}{"without unary":>16}{"difference":>13}')
        for name in whole:
            difference = without[name] - whole[name]
            print(f'{name:24}{whole[name]:10.3f}{without[name]:16.3f}{difference:+13.3f}')


if __name__ == '__main__':
    main()
