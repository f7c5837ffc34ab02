"""Parameters and FLOPs of every config at its nominal size, beside the paper's results.

Prints a table of all configs, or writes those of README.md and docs/model_table.md anew. Nothing is
computed: the models are built of and run on PyTorch's fake tensors, which have no values.
"""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2dPack
from mmdet.registry import MODELS
from mmengine.analysis import parameter_count
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import init_default_scope
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import lesa_mmdet  # noqa: F401

ROOT = Path(__file__).parents[1]
BEGIN = '<!-- written by tools/model_table.py --write -->\n\n'
END = '\n<!-- end of the table -->\n'
OPERATORS = {'LESA': 'LESA', 'SelfAttention': 'self-attention', None: 'convolution'}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--json', action='store_true', help='print JSON instead of markdown')
    group.add_argument('--write', action='store_true', help='write the tables of the documentation')
    args = parser.parse_args()

    rows = [analyze(model) for model in read_index()]
    if args.write:
        for path, text in render_documents(rows).items():
            path.write_text(text)
            print(f'{path} written')
    else:
        print(json.dumps(rows, indent=2) if args.json else render(rows, ''))


def read_index() -> Iterator[dict]:
    """The entries of the model index: name, config and the paper's results."""
    for metafile in load(ROOT / 'model-index.yml')['Import']:
        yield from load(ROOT / metafile)['Models']


def analyze(entry: dict) -> dict:
    """What the table says about a config.

    Args:
        entry (dict): Its entry in the model index.

    Returns:
        dict: Sizes in pixels (H, W), numbers of parameters, FLOPs (multiply-adds) of the backbone
        and of all that runs densely over the image, and the paper's box AP and mask AP.
    """
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / entry['Config'])
    backbone = cfg.model.backbone
    operator = backbone.get('operator', dict(type='LESA'))
    resize = next(step for step in cfg.test_pipeline if step['type'] == 'Resize')
    flops = count_flops(cfg.model, resize['scale'][::-1])
    return dict(
        name=entry['Name'],
        config=entry['Config'],
        backbone='WRN50' if backbone.type == 'LESA_WRN' else 'R50',
        operator=OPERATORS[operator and operator['type']],
        deformable=bool(backbone.get('dcn')),
        epochs=cfg.train_cfg.max_epochs,
        image_size=resize['scale'][::-1],
        keep_ratio=resize['keep_ratio'],
        **flops,
        paper_val=read_results(entry, 'COCO'),
        paper_test_dev=read_results(entry, 'COCO test-dev'),
    )


def read_results(entry: dict, dataset: str) -> list[float]:
    """The paper's box AP and mask AP on a data set, if it has any."""
    results = [result for result in entry.get('Results', ()) if result['Dataset'] == dataset]
    return [ap for result in results for ap in result['Metrics'].values()]


def count_flops(model: dict, image_size: tuple[int, int]) -> dict[str, int]:
    """Count parameters and FLOPs of a detector.

    A FLOP is a multiply-add, as in mmengine's own analysis, which would have to run the model on
    real tensors, for minutes, and skips what it does not know. Convolutions and matrix products
    are counted, attention among them, and the samples of deformable convolutions. Norms,
    activations and the softmax are not, nor are the RoI heads: their work depends on the image.

    Args:
        model (dict): Config of the detector.
        image_size (tuple[int, int]): (H, W) in pixels; padded as the model pads images.

    Returns:
        dict[str, int]: ``parameters``, ``backbone_parameters``, ``backbone_flops`` and ``flops``:
        those of backbone, neck, RPN and HTC's semantic head.
    """
    if model.backbone.get('dcn'):
        model.backbone.dcn.type = 'ShapeOnlyDCN'
    if model.backbone.get('operator', True):
        model.backbone.operator = dict(
            model.backbone.get('operator') or dict(type='LESA'), backend='chunked'
        )
    divisor = model.data_preprocessor.pad_size_divisor
    image_size = (-(-length // divisor) * divisor for length in image_size)
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.lesa_mmdet.attend_chunked: attention_flops,
            torch.ops.aten.grid_sampler_2d: sampling_flops,
        },
    )
    with FakeTensorMode(), torch.no_grad(), counter:
        detector = MODELS.build(model).eval()
        maps = detector.backbone(torch.empty(1, 3, *image_size))
        backbone_flops = counter.get_total_flops()
        maps = detector.neck(maps)
        detector.rpn_head(maps)
        if getattr(detector.roi_head, 'with_semantic', False):
            detector.roi_head.semantic_head(maps)
    parameters = parameter_count(detector)
    return dict(
        parameters=parameters[''],
        backbone_parameters=parameters['backbone'],
        backbone_flops=backbone_flops // 2,  # PyTorch counts multiplications and additions
        flops=counter.get_total_flops() // 2,
    )


def attention_flops(q: tuple, k: tuple, v: tuple, row: tuple, col: tuple, **_) -> int:
    """Two products: queries with keys, weights with values. Shapes as of ``attend``."""
    batch, heads, places, key_dim = q
    return 2 * batch * heads * places**2 * (key_dim + v[-1])


def sampling_flops(x: tuple, grid: tuple, *_, out_shape: tuple, **__) -> int:
    """Bilinear interpolation: four products a value."""
    return 2 * 4 * torch.Size(out_shape).numel()


@MODELS.register_module()
class ShapeOnlyDCN(DeformConv2dPack):
    """Deformable convolution in PyTorch's own operators, for tensors without values.

    One sample for every place and entry of the kernel, then a convolution of the samples.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = self.conv_offset(x).shape[-2:]
        height, width = self.kernel_size
        grid = x.new_empty(len(x), rows * height, cols * width, 2)
        samples = F.grid_sample(x, grid, align_corners=True)
        return F.conv2d(samples, self.weight, stride=self.kernel_size, groups=self.groups)


def render(rows: list[dict], configs: str) -> str:
    """Markdown table.

    Args:
        rows (list[dict]): What :func:`analyze` returns.
        configs (str): Relative path from the document to the folder that has ``configs``.
    """
    lines = [
        '| Config | Backbone, operator | Epochs | Image | Parameters (M): all, backbone '
        '| GFLOPs: dense, backbone | Paper: box AP, mask AP | on test-dev |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        deformable = ', deformable' if row['deformable'] else ''
        height, width = row['image_size']
        aspect = ' keeping the ratio' if row['keep_ratio'] else ''
        cells = [
            f'[{row["name"]}]({configs}{row["config"]})',
            f'{row["backbone"]}, {row["operator"]}{deformable}',
            row['epochs'],
            f'{width} x {height}{aspect}',
            f'{row["parameters"] / 1e6:.2f}, {row["backbone_parameters"] / 1e6:.2f}',
            f'{row["flops"] / 1e9:.1f}, {row["backbone_flops"] / 1e9:.1f}',
            ', '.join(map(str, row['paper_val'])),
            ', '.join(map(str, row['paper_test_dev'])),
        ]
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines) + '\n'


def render_documents(rows: list[dict]) -> dict[Path, str]:
    """The documents that have a table, with it: README.md the paper's rows, the other all."""
    tables = {
        ROOT / 'README.md': render([row for row in rows if row['paper_val']], ''),
        ROOT / 'docs' / 'model_table.md': render(rows, '../'),
    }
    texts = {}
    for path, table in tables.items():
        before, begin, rest = path.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            raise ValueError(f'{path} has no place for the table, between {BEGIN!r} and {END!r}')
        texts[path] = before + begin + table + end + after
    return texts


if __name__ == '__main__':
    main()
