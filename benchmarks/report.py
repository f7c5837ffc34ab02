"""The tables of measured figures in the documentation, rendered from benchmarks/results.

    python benchmarks/report.py --write    # into every document that has a place for one
    python benchmarks/report.py --check    # fail where that would change a document

A place is what stands between ``<!-- NAME: benchmarks/report.py -->`` and ``<!-- end -->``. Of each
benchmark the file of one machine is shown, memory first; other machines are in the summary and in
the table of distances from the floor.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
MACHINE = 'amd-epyc-2-threads-avx512'  # whose tables are shown
PLACE = re.compile(r'(<!-- (\w+): benchmarks/report\.py -->\n).*?(<!-- end -->\n)', re.S)
BOTH = 'forward + backward'
DOCUMENTS = ['README.md', 'README_zh-CN.md', 'docs/benchmarks.md', 'docs/kernels.md']
FORMS = {
    'auto': 'ours',
    'reference': '`reference`',
    'one-hot sdpa': 'one-hot SDPA',
    'dense': '`dense`',
    'flex': 'FlexAttention',
    'conv': 'convolution',
    'lesa': 'LESA',
    'lesa-reference': 'LESA, `reference`',
    'lesa-dense': 'LESA, dense',
}
FORMS_OF_LESA = ('auto', 'dense')
DETECTORS = {'mask-rcnn': 'Mask R-CNN R50', 'htc': 'HTC WRN50'}


def read(name: str, machine: str = MACHINE) -> dict:
    """What a benchmark found on a machine."""
    return json.loads((RESULTS / machine / f'{name}.json').read_text(encoding='utf-8'))


def machines(name: str) -> dict[str, dict]:
    """What a benchmark found on every machine that has run it."""
    return {
        path.parent.name: read(name, path.parent.name) for path in RESULTS.glob(f'*/{name}.json')
    }


def caption(name: str, machine: str = MACHINE) -> str:
    """One line: where and when a benchmark was run, at which commit, by which command."""
    found = read(name, machine)
    about = found['machine']
    where = ', '.join(about[key] for key in ('name', 'instructions') if key in about)
    source = ', figures transcribed from the output' if 'transcribed' in found else ''
    return (
        f'`{found["command"]}`: {where}, torch {about["torch"]}, commit {found["commit"]} of '
        f'{found["date"]}{source}.'
    )


def table(header: Iterable[str], lines: Iterable[Iterable]) -> str:
    """Markdown of a table."""
    rows = [list(header), *map(list, lines)]
    head, *body = (f'| {" | ".join(map(str, row))} |' for row in rows)
    return '\n'.join([head, '|---' * len(rows[0]) + '|', *body])


def cost(result: dict | None, base: dict | None = None) -> str:
    """Memory and time of a step, with the ratios to another's."""
    if result is None:
        return 'not run'
    if 'error' in result:
        return result['error']

    def ratio(key: str) -> str:
        if not base:
            return ''
        times = result[key] / base[key]
        return f'\N{NO-BREAK SPACE}({times:.{1 if times >= 2 else 2}f})'

    memory = f'{result["mib"]:.0f}\N{NO-BREAK SPACE}MiB{ratio("mib")}'
    return f'{memory}, {seconds(result["seconds"])}{ratio("seconds")}'


def seconds(value: float) -> str:
    return f'{value:.3g}\N{NO-BREAK SPACE}s'


def step(record: dict | None, name: str = BOTH) -> dict | None:
    """Of a record its result of a step, or why there is none."""
    if record is None or 'error' in record['result']:
        return record and record['result']
    return record['result'].get(name)


def pick(records: Iterable[dict], **wanted) -> dict | None:
    """The record that has these values."""
    return next((r for r in records if all(r[k] == v for k, v in wanted.items())), None)


def forms_table(name: str, forms: list[str], keys: list[str], title: Callable[[dict], str]) -> str:
    """A row for each case of benchmarks/attention.py, a column for each form; ratios to 'auto'."""
    records = [r for r in read(name)['records'] if r['backward']]
    lines = []
    for ours in (r for r in records if r['form'] == 'auto'):
        same = {key: ours[key] for key in keys}
        costs = [step(pick(records, form=form, **same)) for form in forms]
        lines.append([title(ours), cost(costs[0]), *(cost(c, costs[0]) for c in costs[1:])])
    head = table(['forward + backward', *(FORMS[form] for form in forms)], lines)
    return f'{head}\n\n{caption(name)}'


def attention() -> str:
    def title(r: dict) -> str:
        d, dv = r['channels'] // 16, r['channels'] // 8
        return f'{r["size"]} x {r["size"]}, d {d} / {dv}'

    return forms_table(
        'attention', ['auto', 'reference', 'one-hot sdpa'], ['size', 'channels'], title
    )


def flex() -> str:
    """How FlexAttention compares, whose backward pass a CPU lacks."""
    records = [r for r in read('attention')['records'] if r['size'] == 64]
    ours, other = (step(pick(records, form=form), 'forward') for form in ('auto', 'flex'))
    return f'Forward on 64 x 64 positions, ours: {cost(ours)}; FlexAttention: {cost(other, ours)}.'


def operator() -> str:
    def title(r: dict) -> str:
        norms = 'training' if r['training'] else 'evaluation'
        return f'{r["size"]} x {r["size"]}, C {r["channels"]}, {norms}'

    keys = ['size', 'channels', 'training']
    return forms_table('operator', ['auto', 'reference', 'dense'], keys, title)


def backbone() -> str:
    def title(r: dict) -> str:
        return f'{ {256: "R50", 512: "WRN50"}[r["channels"]] }, image {16 * r["size"]}'

    return forms_table('backbone', ['auto', 'reference'], ['size', 'channels'], title)


def detector() -> str:
    records = read('detector')['records']
    forms = ['conv', 'lesa', 'lesa-reference']
    lines = []
    for model, size in dict.fromkeys((r['model'], r['size']) for r in records):
        results = [
            (pick(records, model=model, size=size, backbone=form) or {}).get('result')
            for form in forms
        ]
        cells = [cost(results[0]), *(cost(r, results[0]) for r in results[1:])]
        lines.append([f'{DETECTORS[model]}, {size}', *cells])
    head = table(['training step', *(FORMS[form] for form in forms)], lines)
    return f'{head}\n\n{caption("detector")}'


def train_step() -> str:
    files = sorted((RESULTS / MACHINE).glob('train_step-*.json'))
    records = [record for file in files for record in read(file.stem)['records']]
    lines = [[f'`{Path(r["config"]).stem}`', cost(r['result'])] for r in records]
    head = table(['one step on a COCO image, whole process with PyTorch', ''], lines)
    return f'{head}\n\n{caption(files[0].stem)}'


def elsa() -> str:
    records = read('neighborhood')['records']
    tables = []
    sums = [r for r in records if r['case'].startswith('sum')]
    lines = []
    for case in dict.fromkeys(r['case'] for r in sums):
        ours, theirs = (pick(sums, case=case, name=n)['result'] for n in ('auto', 'reference'))
        lines.append(
            [case.removeprefix('sum, ').removesuffix(', k 7'), cost(ours), cost(theirs, ours)]
        )
    tables.append(table(['weighted sum over 7 x 7', 'ours', 'all neighbourhoods in memory'], lines))
    swin, ours = (pick(records, name=n)['result'] for n in ('swin-t', 'elsa-swin-t'))
    case = pick(records, name='swin-t')['case']
    lines = [[case, cost(swin), cost(ours, swin)]]
    tables.append(table(['', "mmdet's Swin-T", 'ELSA-Swin-T'], lines))
    return '\n\n'.join([*tables, caption('neighborhood')])


def pretrain() -> str:
    records = read('pretrain')['records']
    lines = []
    for r in records:
        result = r['result']
        speed = result.get('images_per_second') or r['batch'] / result['seconds']
        lines.append([FORMS[r['form']], f'{result["mib"]:.0f} MiB', f'{speed:.2f}'])
    head = table(['R50, 224 x 224, batch 8', 'memory', 'images a second'], lines)
    return f'{head}\n\n{caption("pretrain")}'


def times_floor(record: dict, name: str) -> float | None:
    """How many times the floor attention takes in a step."""
    result = step(record, name)
    if not result or 'error' in result:
        return None
    floor = record['floor'].get(name)
    return result.get('times_floor') or result['seconds'] / sum(floor.values())


def span(values: Iterable[float], form: str = '.2f') -> str:
    """'1.07 to 1.24', or the only value."""
    values = list(values)
    low, high = min(values), max(values)
    return f'{low:{form}}' if low == high else f'{low:{form}} to {high:{form}}'


def floor() -> str:
    lines = []
    for folder, found in machines('floor').items():
        ours = [r for r in found['records'] if r['form'] == 'auto']
        for title, chosen in (
            ('64 x 64 and more', [r for r in ours if r['size'] >= 64]),
            ('32 x 32', [r for r in ours if r['size'] < 64]),
        ):
            spans = [
                span(x for r in chosen if (x := times_floor(r, name))) for name in ('forward', BOTH)
            ]
            lines.append([folder, title, *spans])
    captions = '\n'.join(f'* {name}: {caption("floor", name)}' for name in machines('floor'))
    return f'{table(["machine", "maps", "forward", BOTH], lines)}\n\n{captions}'


def kernels() -> str:
    found = machines('kernels')
    versions = sorted(found, key=lambda machine: machine.split('.'), reverse=True)
    keys = ('registers', 'stack', 'shared', 'instructions')
    same = ('capability', 'channels', 'kernel', 'queries', 'tile', 'units')
    header = ['GPU', 'channels', 'kernel', 'queries, keys', 'units']
    for version in versions:
        name = version.removeprefix('triton-')
        header += [f'{name}: {keys[0]}', *keys[1:]]
    lines = []
    for record in found[versions[0]]['records']:
        if record['dtype'] != 'bfloat16':
            continue
        line = [record['capability'], record['channels'], f'`{record["kernel"]}`']
        line += [f'{record["queries"]}, {record["tile"]}', record['units']]
        for version in versions:
            other = pick(found[version]['records'], **{key: record[key] for key in same})
            shared = round(other['shared'] / 1024)
            line += [other['registers'], other['stack'], shared, f'{other["instructions"]:.1f}']
        lines.append(line)
    return table(header, lines)


def summary() -> str:
    """Five lines, with ranges over machines."""
    return '\n'.join(f'* {line()}' for line in (_attention, _operator, _detector, _floor, _others))


def _attention() -> str:
    records = read('attention')['records']
    pairs = [
        (step(r), step(pick(records, form='reference', size=r['size'], channels=r['channels'])))
        for r in records
        if r['form'] == 'auto' and r['backward']
    ]
    (ours, dense), *_ = [pair for pair in pairs if 'error' in pair[1]]
    done = [pair for pair in pairs if 'error' not in pair[1]]
    return (
        f'**Attention** on 128 x 128 positions takes {ours["mib"]:.0f} MiB; the leanest dense form '
        f'{dense["error"]}, and on smaller maps takes {ratios("mib", done, ".1f")} times our '
        f'memory and {ratios("seconds", done, ".1f")} times our time.'
    )


def _operator() -> str:
    pairs = [
        [step(pick(found['records'], form=form, size=64, training=False)) for form in FORMS_OF_LESA]
        for found in machines('operator').values()
    ]
    return (
        f'**The operator** as its definition reads takes {ratios("seconds", pairs, ".1f")} times '
        'our time on 64 x 64 positions.'
    )


def _detector() -> str:
    steps = [
        {r['backbone']: r['result'] for r in found['records'] if r['model'] == 'mask-rcnn'}
        for found in machines('detector').values()
    ]
    pairs = [(found['conv'], found['lesa']) for found in steps]
    return (
        f'**A training step of Mask R-CNN** with LESA takes {ratios("mib", pairs)} times the '
        f'memory and {ratios("seconds", pairs)} times the time of convolution.'
    )


def _floor() -> str:
    times = [
        times_floor(r, BOTH)
        for found in machines('floor').values()
        for r in found['records']
        if r['form'] == 'auto' and r['size'] >= 64 and r['backward']
    ]
    return (
        '**From the floor**, what products and exponentials take alone, attention is '
        f'{span(times)} times away on maps of 64 x 64 and more.'
    )


def _others() -> str:
    swins = [pick(read('neighborhood')['records'], name=n) for n in ('swin-t', 'elsa-swin-t')]
    swins = [[r['result'] for r in swins]]
    forms = [pick(read('pretrain')['records'], form=form) for form in ('conv', 'lesa')]
    forms = [[r['result'] for r in forms]]
    return (
        f'**ELSA-Swin-T** takes {ratios("mib", swins)} times the memory and '
        f'{ratios("seconds", swins)} times the time of Swin-T; **an ImageNet step** with LESA '
        f'{ratios("mib", forms)} times the memory of convolution.'
    )


def ratios(key: str, pairs: Iterable[tuple[dict, dict]], form: str = '.2f') -> str:
    """How many times the first of a pair the second is: the range."""
    return span((second[key] / first[key] for first, second in pairs), form)


def readme() -> str:
    operators = [
        r for r in read('operator')['records'] if (r['size'], r['training']) == (80, False)
    ]
    steps = {
        r['backbone']: r['result'] for r in read('detector')['records'] if r['model'] == 'mask-rcnn'
    }
    ours, dense = (step(pick(operators, form=form)) for form in FORMS_OF_LESA)
    return table(
        ['', 'LESA, ours', 'LESA, matrix in memory', '3x3 convolution'],
        [
            ['The layer, 80 x 80 positions, 512 channels', cost(ours), cost(dense), ''],
            [
                'Mask R-CNN R50 at 1024, a training step',
                cost(steps['lesa']),
                cost(steps['lesa-reference']),
                cost(steps['conv']),
            ],
        ],
    )


TABLES = [summary, attention, flex, operator, backbone, detector, train_step, elsa, pretrain, floor]
TABLES = {make.__name__: make for make in [*TABLES, kernels, readme]}


def render(text: str) -> str:
    """A document with its tables anew.

    Raises:
        KeyError: If it has a place for a table that there is not.
    """
    return PLACE.sub(lambda found: f'{found[1]}{TABLES[found[2]]()}\n{found[3]}', text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument('--write', action='store_true', help='write them into the documents')
    group.add_argument('--check', action='store_true', help='fail if --write would change any')
    args = parser.parse_args()
    changed = []
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text(encoding='utf-8')
        if render(text) != text:
            changed.append(name)
            if args.write:
                path.write_text(render(text), encoding='utf-8')
    if args.check and changed:
        sys.exit(f'error: {", ".join(changed)} would change: python benchmarks/report.py --write')
    print(', '.join(changed) or 'nothing', 'written' if args.write else 'would change')


if __name__ == '__main__':
    main()
