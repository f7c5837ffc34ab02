"""Time and peak memory of ELSA: the weighted neighbourhood sum, and ELSA-Swin-T against Swin-T.

The sum is compared with the definition, which lays all neighbourhoods out in memory, and on a GPU
with mmcv's CARAFE. The backbones run forward and backward on one image:

    python benchmarks/neighborhood.py
"""

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from measure import Meter, announce, check_outputs, compare, make_parser, save
from mmcv.ops import carafe
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

import lesa_mmdet  # noqa: F401
from lesa_mmdet.attention import attend_neighborhood
from lesa_mmdet.utils.command import command

WINDOW = 7
SUMS = [(192, 6, 100, 168), (96, 3, 200, 336)]  # channels, heads, height, width
BACKBONES = {'swin-t': 'SwinTransformer', 'elsa-swin-t': 'ELSA_Swin'}
IMAGE_SIZE = (800, 1216)


def run_sum(
    form: str, dtype: torch.dtype, sizes: tuple[int, int, int, int], device: str, seconds: float
) -> dict:
    """Measure the sum's forward and backward pass, in this process."""
    channels, heads, height, width = sizes
    function = attend_with_carafe if form == 'carafe' else attend_with(form)
    meter = Meter(device, seconds)
    options = dict(device=device, requires_grad=True)
    v = torch.randn(1, channels, height, width, dtype=dtype, **options)
    weights = torch.rand(1, heads, WINDOW**2, height, width, **options)
    inputs = [v, weights]
    if form != 'carafe':  # which has no fixed part
        inputs.append(torch.randn(channels, WINDOW, WINDOW, **options))
    grad = torch.randn_like(v)

    def step() -> None:
        out = function(*inputs)
        torch.autograd.grad(out, inputs, grad.to(out.dtype))

    return meter(step)


def attend_with(backend: str) -> Callable[..., Tensor]:
    """ELSA-Swin's sum, through one of our backends."""
    return lambda v, weights, add: attend_neighborhood(v, weights, add=add, backend=backend)


def attend_with_carafe(v: Tensor, weights: Tensor) -> Tensor:
    """The same without the fixed part: heads as images, one group each."""
    v_of_heads = v.unflatten(1, (weights.shape[1], -1)).flatten(0, 1)
    out = carafe(v_of_heads.float(), weights.flatten(0, 1), WINDOW, 1, 1)
    return out.reshape(v.shape)


def run_backbone(
    kind: str, dtype: torch.dtype, size: tuple[int, int], device: str, seconds: float
) -> dict:
    """Measure a backbone's forward and backward pass on an image, in this process."""
    init_default_scope('mmdet')
    backbone = MODELS.build(dict(type=BACKBONES[kind]))
    backbone.train()
    backbone.to(device)
    meter = Meter(device, seconds)
    image = torch.randn(1, 3, *size, device=device)
    autocast = torch.autocast(device, dtype) if dtype != torch.float32 else nullcontext()

    took = []

    def step() -> None:
        start = time.process_time()
        with autocast:
            outs = backbone(image)
        torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
        backbone.zero_grad()
        took.append(time.process_time() - start)

    result = meter(step)
    if device == 'cpu':  # of all threads: what other programs on the machine change little
        result['processor_seconds'] = min(took)
    return result


def figures(result: dict) -> str:
    """Time and memory of a step."""
    line = f'{result["seconds"] * 1e3:9.1f} ms {result["mib"]:8.1f} MiB'
    if 'processor_seconds' in result:
        line += f' {result["processor_seconds"]:6.2f} s of processors'
    return line


@command
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32')
    parser.add_argument('--only', choices=['sum', 'backbone'])
    parser.add_argument('--size', nargs=2, type=int, default=IMAGE_SIZE, help='of the image, H W')
    args = parser.parse_args()

    check_outputs(args.json)
    about = announce(args.device)
    dtype, records = getattr(torch, args.dtype), []
    ways = ['auto', 'reference', *(['shifted', 'carafe'] if args.device == 'cuda' else [])]
    cases = [] if args.only == 'backbone' else [
        (f'sum, {channels} channels, {height} x {width}, k {WINDOW}', ways, run_sum, sizes)
        for sizes in SUMS
        for channels, _, height, width in [sizes]
    ]  # fmt: skip
    if args.only != 'sum':
        title = 'backbone, {} x {}'.format(*args.size)
        cases.append((title, list(BACKBONES), run_backbone, tuple(args.size)))
    for title, names, run, sizes in cases:
        print(f'\n{title}, {args.dtype}, forward and backward')
        options = (dtype, sizes, args.device, args.seconds)
        for name, result in compare(
            {name: (run, name, *options) for name in names}, figures
        ).items():
            records.append(dict(case=title, name=name, dtype=args.dtype, result=result))
    save(args.json, 'neighborhood', about, records)


if __name__ == '__main__':
    main()
