"""Time and peak memory of exact attention, of the LESA operator and of whole backbones.

Each is measured in the forms that a user can choose from: this package's backends, the dense
definition, PyTorch's scaled_dot_product_attention on one-hot positions, and flex_attention (GPU).
Ratios are to 'auto', all from one run:

    python benchmarks/attention.py --json attention.json --plot attention.png
"""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from measure import Meter, check_outputs, in_own_process, machine, memory_of, save
from torch import Tensor, nn

from lesa_mmdet import LESA, LESA_WRN, LESA_ResNet
from lesa_mmdet.attention import attend, fit_table, relative_logits
from lesa_mmdet.attention.decomposed.reference import attend_normalized
from lesa_mmdet.command import command
from lesa_mmdet.layers.context import DecomposedContext

HEADS = 8
STEPS = ('forward', 'forward + backward')

# Exponentials and half precision matrix operations a second of a GPU: the two floors.
GPU_SPEEDS = {'H200': (3.7e12, 989e12), 'H100': (3.7e12, 989e12), 'A100': (2.4e12, 312e12)}


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        part (str): 'attention', 'operator' or 'backbone'.
        size (int): Side of the map in places; of a backbone, of its stage 3.
        channels (int): Channels of the operator: each of 8 heads has 1/16 of them for queries and
            keys, 1/8 for values. Of a backbone those of stage 3: 256 is R50, 512 is WRN50.
        form (str): How it is computed.
        training (bool): Whether norms use the statistics of the batch.
        backward (bool): Whether forward + backward is measured, too.
        dtype (str): Of the attention's inputs; of the other parts, autocast's.
        batch (int): Images.
        device (str): 'cpu' or 'cuda'.
    """

    part: str
    size: int
    channels: int
    form: str
    training: bool = False
    backward: bool = True
    dtype: str = 'float32'
    batch: int = 1
    device: str = 'cpu'

    def __str__(self) -> str:
        norms = (
            '' if self.part == 'attention' else f', norms {"train" if self.training else "eval"}'
        )
        return (
            f'{self.part} {self.size} x {self.size}, C {self.channels}{norms}, '
            f'{self.dtype}, batch {self.batch}'
        )


def attend_onehot(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Positions as further channels: row and col meet the one-hot row and column of each key."""
    rows, cols = row.shape[-1], col.shape[-1]
    place = torch.arange(rows * cols, device=q.device)
    onehot = torch.cat((F.one_hot(place // cols, rows), F.one_hot(place % cols, cols)), -1)
    query = torch.cat((q, row, col), -1)
    key = torch.cat((k, onehot.to(k.dtype).expand(*k.shape[:2], -1, -1)), -1)
    value = F.pad(v, (0, max(0, query.shape[-1] - v.shape[-1])))  # the fast kernels want one width
    out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out[..., : v.shape[-1]]


def attend_flex(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Positions as flex_attention's change of scores, compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    cols = col.shape[-1]

    def add_position(score, b, h, i, j):
        return score + row[b, h, i, j // cols] + col[b, h, i, j % cols]

    compiled = torch.compile(flex_attention, dynamic=False)
    return compiled(q, k, v, score_mod=add_position, scale=1.0)


class DenseContext(DecomposedContext):
    """The context term as its definition reads: all similarity terms are built and normalized."""

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        q, k, v = self.project(x)
        height, width = fit_table(self.height, rows), fit_table(self.width, cols)
        row, col = relative_logits(q, height, width)
        out = attend_normalized(q, k, v, row, col, self.similarity_norm)
        return self.output_norm(rearrange(out, 'b n (h w) d -> b (n d) h w', h=rows))


def run(case: Case, seconds: float) -> dict:
    """Measure a case, in this process: what each step takes, or why it was left out."""
    needed, there = dense_bytes(case), memory_of(case.device)
    if needed > 0.8 * there:
        return dict(error=f'needs {needed / 2**30:.0f} of {there / 2**30:.0f} GiB')
    meter = Meter(case.device, seconds)
    torch.manual_seed(0)
    builders = dict(attention=build_attention, operator=build_operator, backbone=build_backbone)
    forward, inputs = builders[case.part](case)

    def infer():
        with torch.no_grad():
            forward()

    def train():
        out = forward()
        torch.autograd.grad(out, inputs, torch.ones_like(out))

    steps = (infer, train) if case.backward else (infer,)
    return {name: meter(step) for name, step in zip(STEPS, steps)}


def dense_bytes(case: Case) -> int:
    """About what the similarity matrices of a dense form take."""
    matrices = {'reference': 3, 'dense': 8}.get(case.form, 0)
    if case.part == 'backbone':  # each of six large layers keeps the softmax's output
        matrices *= 3
    return matrices * case.batch * HEADS * case.size**4 * 4


def build_attention(case: Case) -> tuple[Callable, list[Tensor]]:
    d, dv = case.channels // HEADS // 2, case.channels // HEADS
    options = dict(device=case.device, dtype=getattr(torch, case.dtype))
    # Views of a projection's output, as in the operator.
    qkv = torch.randn(case.batch, HEADS, 2 * d + dv, case.size**2, **options) * d**-0.25
    row, col = torch.randn(2, case.batch, HEADS, case.size**2, case.size, **options)
    q, k, v = qkv.transpose(-1, -2).split((d, d, dv), dim=-1)
    inputs = [x.detach().requires_grad_() for x in (q, k, v, row, col)]
    if case.form == 'one-hot sdpa':
        return lambda: attend_onehot(*inputs), inputs
    if case.form == 'flex':
        return lambda: attend_flex(*inputs), inputs
    return lambda: attend(*inputs, backend=case.form), inputs


def build_operator(case: Case) -> tuple[Callable, list[Tensor]]:
    operator = LESA(
        case.channels,
        case.channels,
        feat_size=(case.size, case.size),
        num_heads=HEADS,
        backend='auto' if case.form == 'dense' else case.form,
    )
    if case.form == 'dense':
        operator.context.__class__ = DenseContext
    operator.train(case.training)
    image = torch.randn(case.batch, case.channels, case.size, case.size, requires_grad=True)
    return build_module(case, operator, image)


def build_backbone(case: Case) -> tuple[Callable, list[Tensor]]:
    side = 16 * case.size
    backbone = {256: LESA_ResNet, 512: LESA_WRN}[case.channels](
        50,
        operator=None if case.form == 'conv' else dict(type='LESA', backend=case.form),
        input_size=(side, side),
        frozen_stages=1,
        norm_eval=not case.training,
    )
    backbone.train()
    return build_module(case, backbone, torch.randn(case.batch, 3, side, side))


def build_module(case: Case, module: nn.Module, image: Tensor) -> tuple[Callable, list[Tensor]]:
    module, image = module.to(case.device), image.to(case.device)
    inputs = [x for x in (image, *module.parameters()) if x.requires_grad]
    half = case.dtype != 'float32'

    def forward() -> Tensor:
        with torch.autocast(case.device, getattr(torch, case.dtype)) if half else nullcontext():
            out = module(image)
        return out if isinstance(out, Tensor) else sum(x.sum() for x in out)

    return forward, inputs


FORMS = {
    'attention': ['auto', 'reference', 'chunked', 'one-hot sdpa', 'flex'],
    'operator': ['auto', 'reference', 'dense'],
    'backbone': ['auto', 'reference', 'conv'],
}


def default_cases(device: str) -> Iterator[Case]:
    """What the documentation quotes."""
    if device == 'cuda':
        for dtype, size, channels in product(('bfloat16', 'float32'), (64, 80), (256, 512, 1024)):
            for part in FORMS:
                for form in FORMS[part]:
                    if part != 'backbone' or channels in (256, 512):
                        yield Case(part, size, channels, form, dtype=dtype, batch=2, device=device)
        return
    for size, channels in ((32, 256), (64, 256), (80, 1024), (128, 256)):
        for form in ('auto', 'reference', 'one-hot sdpa'):
            yield Case('attention', size, channels, form)
    yield Case('attention', 256, 256, 'auto', backward=False)
    for training in (False, True):
        for size, channels in ((64, 256), (80, 512)):
            for form in ('auto', 'reference', 'dense'):
                yield Case('operator', size, channels, form, training)
    yield Case('operator', 128, 1024, 'auto', backward=False)
    for form in FORMS['backbone']:
        yield Case('backbone', 64, 256, form)


def asked_cases(args: argparse.Namespace) -> Iterator[Case]:
    """The default cases, or those that the command line spells out; less what it leaves out."""
    if args.size or args.channels or args.dtype:
        cases = (
            Case(part, size, channels, form, dtype=dtype, device=args.device)
            for part, dtype, size, channels in product(
                FORMS, args.dtype or ['float32'], args.size or [64], args.channels or [256]
            )
            for form in FORMS[part]
            if form != 'flex' or args.device == 'cuda'
        )
    else:
        cases = default_cases(args.device)
    for case in cases:
        if case.part in (args.part or FORMS) and case.form in (args.form or [case.form]):
            yield replace(
                case,
                batch=args.batch or case.batch,
                backward=case.backward and not args.forward_only,
            )


def floors(case: Case) -> dict:
    """Seconds that the exponentials and the matrix units of a known GPU need at least."""
    name = torch.cuda.get_device_name() if case.device == 'cuda' else ''
    speeds = [value for key, value in GPU_SPEEDS.items() if key in name]
    if not speeds or case.part != 'attention':
        return {}
    scores = case.batch * HEADS * case.size**4
    d, dv = case.channels // HEADS // 2, case.channels // HEADS
    # Backward: logits and weights again, then one product for each gradient but those of row, col.
    counts = {STEPS[0]: (1, d + dv), STEPS[1]: (2, d + dv + 3 * d + 2 * dv)}
    return {
        step: max(scores * exponentials / speeds[0][0], 2 * scores * channels / speeds[0][1])
        for step, (exponentials, channels) in counts.items()
    }


def report(case: Case, result: dict, ours: dict) -> str:
    """One line: seconds and MiB of each step, and how many times those of 'auto' they are."""
    line = f'  {case.form:<12}'
    for step in STEPS:
        if step not in result:
            continue
        seconds, mib = result[step]['seconds'], result[step]['mib']
        line += f' | {seconds:8.4f} s {mib:7.0f} MiB '
        if step in result.get('floors', {}):
            line += f'{seconds / result["floors"][step]:5.1f} x floor'.ljust(20)
        elif step in ours and ours is not result:
            line += (
                f'{seconds / ours[step]["seconds"]:5.1f} x  {mib / ours[step]["mib"]:5.1f} x'.ljust(
                    20
                )
            )
        else:
            line += ' ' * 20
    return line + result.get('error', '')


def plot(records: list[dict], path: str) -> None:
    """Memory and time of the attention's forms against the number of places, log-log."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout='constrained')
    done = [r for r in records if r['part'] == 'attention' and STEPS[0] in r['result']]
    curves = sorted({(r['form'], r['channels'], r['dtype']) for r in done})
    for axis, key, label in zip(axes, ('mib', 'seconds'), ('peak memory (MiB)', 'time (s)')):
        for form, channels, dtype in curves:
            points = sorted(
                (r['size'] ** 2, r['result'][step][key])
                for r in done
                if (r['form'], r['channels'], r['dtype']) == (form, channels, dtype)
                for step in STEPS[1:]
                if step in r['result']
            )
            axis.plot(*zip(*points), marker='o', label=f'{form}, C {channels}, {dtype}')
        axis.set(xscale='log', yscale='log', xlabel='places of the map (tokens)', ylabel=label)
        axis.grid(True, which='both', alpha=0.3)
    figure.suptitle('attention, forward + backward')
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
    figure.savefig(path, dpi=120)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--part', nargs='+', choices=FORMS, help='only these parts')
    parser.add_argument('--form', nargs='+', help='only these forms, for example: auto reference')
    parser.add_argument(
        '--size', nargs='+', type=int, help='sides of the map instead of the default'
    )
    parser.add_argument('--channels', nargs='+', type=int, help='channels instead of the default')
    parser.add_argument('--dtype', nargs='+', help='float32, float16, bfloat16')
    parser.add_argument('--batch', type=int, help='images')
    parser.add_argument('--forward-only', action='store_true')
    parser.add_argument('--seconds', type=float, default=2, help='time to repeat each step for')
    parser.add_argument('--json', help='file for all figures')
    parser.add_argument('--plot', help='file for a plot of the attention against the tokens')
    return parser.parse_args()


@command
def main() -> None:
    args = parse_args()
    check_outputs(args.json, args.plot)
    about = machine(args.device)
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    records, title, ours = [], None, {}
    for case in asked_cases(args):
        if str(case) != title:
            title, ours = str(case), {}
            print(f'\n{title}\n{"":14}' + ''.join(f' | {step:<45}' for step in STEPS))
        result = in_own_process(run, case, args.seconds)
        if case.form == 'auto':
            ours = result
            if 'error' not in result:
                result['floors'] = floors(case)
        records.append({**asdict(case), 'result': result})
        print(report(case, result, ours), flush=True)
    save(args.json, about, records)
    if args.plot:
        plot(records, args.plot)


if __name__ == '__main__':
    main()
