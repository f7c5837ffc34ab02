"""Time and peak memory of exact attention, of the LESA operator and of whole backbones.

Each is measured in the forms that a user can choose from: this package's backends, the dense
definition, PyTorch's scaled_dot_product_attention on one-hot positions, and flex_attention (which
has no backward pass on a CPU).
Ratios are to 'auto', all from one run:

    python benchmarks/attention.py --plot attention.png
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import reduce
from itertools import product

import torch
from floor import floors
from forms import FORMS, Case, build
from measure import (
    Meter,
    announce,
    check_outputs,
    fastest,
    in_own_process,
    make_parser,
    memory_of,
    save,
)

from lesa_mmdet.utils.command import command

STEPS = ('forward', 'forward + backward')
# Attention and its floor take turns: else the drift of a machine's speed would be a distance.
TURNS = 4


def run(case: Case, seconds: float) -> dict:
    """Measure a case, in this process: what each step takes, or why it was left out."""
    needed, there = case.dense_bytes, memory_of(case.device)
    if needed > 0.8 * there:
        return dict(error=f'needs {needed / 2**30:.0f} of {there / 2**30:.0f} GiB')
    meter = Meter(case.device, seconds)
    forward, inputs = build(case)

    def infer():
        with torch.no_grad():
            forward()

    def train():
        out = forward()
        torch.autograd.grad(out, inputs, torch.ones_like(out))

    steps = (infer, train) if case.backward else (infer,)
    return {name: meter(step) for name, step in zip(STEPS, steps, strict=False)}


def run_beside_floor(case: Case, seconds: float) -> tuple[dict, dict]:
    """What `run` returns and the parts of the floor: of each number the smallest of all turns."""
    turns = [
        (in_own_process(floors, case, seconds / 8), in_own_process(run, case, seconds / 2))
        for _ in range(TURNS)
    ]
    floor, result = (reduce(fastest, measured) for measured in zip(*turns, strict=True))
    return result, floor


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
        if size == 64:
            yield Case('attention', size, channels, 'flex', backward=False)
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
            if form != 'flex' or args.device == 'cuda' or args.forward_only
        )
    else:
        cases = default_cases(args.device)
    for case in cases:
        part = ['attention'] if args.floor else args.part or FORMS
        if case.part in part and case.form in (args.form or [case.form]):
            yield replace(
                case,
                batch=args.batch or case.batch,
                backward=case.backward and not args.forward_only,
            )


def report(case: Case, result: dict, ours: dict, floor: dict) -> str:
    """One line: seconds and MiB of each step, how many times those of 'auto', or of the floor."""
    line = f'  {case.form:<12}'
    for step in STEPS:
        if step not in result:
            continue
        seconds, mib = result[step]['seconds'], result[step]['mib']
        ratio = ''
        if step in floor:
            ratio = f'{seconds / sum(floor[step].values()):5.2f} x floor'
        elif step in ours and ours is not result:
            ratio = f'{seconds / ours[step]["seconds"]:5.1f} x  {mib / ours[step]["mib"]:5.1f} x'
        line += f' | {seconds:8.4f} s {mib:7.0f} MiB {ratio:<20}'
    return line + result.get('error', '')


def report_floor(floor: dict) -> str:
    """One line: seconds of each step's floor, and what it is made of."""
    line = f'  {"floor":<12}'
    for parts in floor.values():
        line += f' | {sum(parts.values()):8.4f} s ' + ', '.join(
            f'{name} {seconds:.3f}' for name, seconds in parts.items()
        )
    return line


def plot(records: list[dict], path: str) -> None:
    """Memory and time of the attention's forms against the number of positions, log-log."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout='constrained')
    done = [r for r in records if r['part'] == 'attention' and STEPS[1] in r['result']]
    curves = sorted({(r['form'], r['channels'], r['dtype']) for r in done})
    for axis, key, label in zip(
        axes, ('mib', 'seconds'), ('peak memory (MiB)', 'time (s)'), strict=True
    ):
        for form, channels, dtype in curves:
            points = sorted(
                (r['size'] ** 2, r['result'][step][key])
                for r in done
                if (r['form'], r['channels'], r['dtype']) == (form, channels, dtype)
                for step in STEPS[1:]
                if step in r['result']
            )
            axis.plot(
                *zip(*points, strict=True), marker='o', label=f'{form}, C {channels}, {dtype}'
            )
        axis.set(xscale='log', yscale='log', xlabel='positions of the map (tokens)', ylabel=label)
        axis.grid(True, which='both', alpha=0.3)
    figure.suptitle('attention, forward + backward')
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
    figure.savefig(path, dpi=120)


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__, seconds=2)
    parser.add_argument('--part', nargs='+', choices=FORMS, help='only these parts')
    parser.add_argument('--form', nargs='+', help='only these forms, for example: auto reference')
    parser.add_argument(
        '--size', nargs='+', type=int, help='sides of the map instead of the default'
    )
    parser.add_argument('--channels', nargs='+', type=int, help='channels instead of the default')
    parser.add_argument('--dtype', nargs='+', help='float32, float16, bfloat16')
    parser.add_argument('--batch', type=int, help='images')
    parser.add_argument('--forward-only', action='store_true')
    parser.add_argument(
        '--floor', action='store_true', help='attention, and what its parts take alone'
    )
    parser.add_argument('--plot', help='file for a plot of the attention against the tokens')
    return parser.parse_args()


@command
def main() -> None:
    args = parse_args()
    check_outputs(args.json, args.plot)
    about = announce(args.device)
    records, title, ours, floor = [], None, {}, {}
    for case in asked_cases(args):
        if str(case) != title:
            title, ours = str(case), {}
            print(f'\n{title}\n{"":14}' + ''.join(f' | {step:<45}' for step in STEPS))
        if args.floor:
            result, floor = run_beside_floor(case, args.seconds)
            print(report_floor(floor))
        else:
            result = in_own_process(run, case, args.seconds)
        if case.form == 'auto':
            ours = result
        records.append({**asdict(case), 'result': result, 'floor': floor})
        print(report(case, result, ours, floor), flush=True)
    if args.json or args.floor:
        save(args.json, 'floor' if args.floor else 'attention', about, records)
    else:
        for part in dict.fromkeys(record['part'] for record in records):
            save(None, part, about, [record for record in records if record['part'] == part])
    if args.plot:
        plot(records, args.plot)


if __name__ == '__main__':
    main()
