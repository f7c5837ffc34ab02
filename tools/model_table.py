"""Parameters and FLOPs of every config at its nominal size, with the paper's results.

Prints a table of detectors and one of classifiers, or writes those of the READMEs and docs/ anew.
Nothing is computed: the models are built and run on the meta device, whose tensors have no values.
"""

import json
import os
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import init_default_scope

from lesa_mmdet.analysis.complexity import count_classifier, count_detector, operator_of
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.errors import UserFileNotFoundError, UserValueError

ROOT = Path(__file__).parents[1]
BEGIN = '<!-- written by tools/model_table.py --write -->\n\n'
END = '\n<!-- end of the table -->\n'
OPERATORS = {
    'ELSA': 'ELSA',
    'LESA': 'LESA',
    'SelfAttention': 'self-attention',
    'AugmentedAttention': 'attention augmentation',
}
FRAMEWORKS = {
    'mask-rcnn': 'Mask R-CNN',
    'htc': 'HTC',
    'cascade-mask-rcnn': 'Cascade Mask R-CNN',
}
# The columns of README's two tables: operators by their heading.
OF_RESNETS = {
    'convolution': 'convolution',
    'self-attention': 'self-attention',
    'LESA': 'LESA',
}
OF_SWINS = {'windows': 'Swin', 'ELSA': 'ELSA-Swin'}
SWINS = {(96, 6): 'Swin-T', (96, 18): 'Swin-S', (128, 18): 'Swin-B'}  # width, depth of stage 3


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        'configs', nargs='*', type=Path, help='configs or folders of them; all, if none is given'
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--json', action='store_true', help='print JSON instead of markdown')
    group.add_argument('--write', action='store_true', help='write the tables of the documentation')
    group.add_argument('--check', action='store_true', help='fail if --write would change any')
    args = parser.parse_args()
    # mmengine imports it once for every base file.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    if (args.write or args.check) and args.configs:
        parser.error('--write and --check are for the tables of all configs: name none')

    rows = [analyze(entry) for entry in choose(list(read_index()), args.configs)]
    if args.check:
        changed = find_changed(render_documents(rows))
        if changed:
            sys.exit(f'error: {", ".join(changed)} would change: tools/model_table.py --write')
    elif args.write:
        for path, text in render_documents(rows).items():
            path.write_text(text, encoding='utf-8')
            print(f'{path} written')
    else:
        print(json.dumps(rows, indent=2) if args.json else render(rows, ROOT))


def read_index() -> Iterator[dict]:
    """The entries of the model index: name, config and the paper's results."""
    for metafile in load(ROOT / 'model-index.yml')['Import']:
        yield from load(ROOT / metafile)['Models']


def choose(entries: list[dict], configs: list[Path]) -> list[dict]:
    """The entries whose configs are among those named, or in a folder that is.

    Raises:
        FileNotFoundError: If there is none of a name.
    """
    if not configs:
        return entries
    chosen = []
    for path in configs:
        of_path = [entry for entry in entries if contains(path, ROOT / entry['Config'])]
        if not of_path:
            folders = sorted({str(Path(entry['Config']).parent) for entry in entries})
            raise UserFileNotFoundError(
                f'{path} is no config of the model index and no folder of such; '
                f'folders: {", ".join(folders)}'
            )
        chosen += of_path
    return chosen


def contains(path: Path, config: Path) -> bool:
    return path.resolve() == config or path.resolve() in config.parents


def analyze(entry: dict) -> dict:
    """What the table says about a config.

    Args:
        entry (dict): Its entry in the model index.

    Returns:
        dict: Size in pixels (H, W), numbers of parameters, FLOPs (multiply-adds) and the paper's
        results. Of a detector: FLOPs of the backbone and of all that runs densely over the image,
        box AP and mask AP. Of a classifier: top-1 and top-5 accuracy.
    """
    init_default_scope('mmdet')
    # Without custom modules: a classifier's are mmpretrain's, and nothing of them is needed.
    cfg = Config.fromfile(ROOT / entry['Config'], import_custom_modules=False)
    backbone = cfg.model.backbone
    common = dict(
        name=entry['Name'],
        config=entry['Config'],
        backbone=name_backbone(backbone),
        operator=name_operator(backbone),
        deformable=bool(backbone.get('dcn')),
        epochs=entry['Metadata']['Epochs'],
    )
    if cfg.default_scope == 'mmpretrain':
        return dict(
            **common,
            task='classification',
            image_size=backbone.input_size,
            **count_classifier(cfg.model),
            paper_top=read_results(entry, 'ImageNet-1k'),
        )
    resize = next(step for step in cfg.test_pipeline if step['type'] == 'Resize')
    return dict(
        **common,
        task='detection',
        image_size=resize['scale'][::-1],
        keep_ratio=resize['keep_ratio'],
        **count_detector(cfg.model, resize['scale'][::-1]),
        paper_val=read_results(entry, 'COCO'),
        paper_test_dev=read_results(entry, 'COCO test-dev'),
    )


def name_backbone(backbone: dict) -> str:
    """The backbone in a word."""
    if 'Swin' in backbone.type:
        width, depths = backbone.get('embed_dims', 96), backbone.get('depths', (2, 2, 6, 2))
        return SWINS[width, depths[2]]
    return 'WRN50' if backbone.type == 'LESA_WRN' else 'R50'


def name_operator(backbone: dict) -> str:
    """The operator in words: which, and what is not its default."""
    operator = operator_of(backbone)
    if operator is None:
        return 'windows' if 'Swin' in backbone.type else 'convolution'
    static = 'static ' if operator.get('fusion') == 'static' else ''
    position = operator.get('position')
    kind = operator['type']
    name = OPERATORS.get(kind, kind) if isinstance(kind, str) else kind.__name__
    return static + name + (f', {position}' if position else '')


def read_results(entry: dict, dataset: str) -> list[float]:
    """The paper's box AP and mask AP on a data set, if it has any."""
    results = [result for result in entry.get('Results', ()) if result['Dataset'] == dataset]
    return [ap for result in results for ap in result['Metrics'].values()]


def render(rows: list[dict], folder: Path) -> str:
    """Markdown: a table of the detectors and one of the classifiers, if there are any.

    Args:
        rows (list[dict]): What :func:`analyze` returns.
        folder (Path): Where the document lies, for its links.
    """
    tables = []
    for task, header, columns in (
        ('detection', DETECTOR_HEADER, detector_columns),
        ('classification', CLASSIFIER_HEADER, classifier_columns),
    ):
        lines = [
            [link(row['name'], row, folder), *columns(row)] for row in rows if row['task'] == task
        ]
        if lines:
            tables.append(make_table(header, lines))
    return '\n'.join(tables)


def render_results(rows: list[dict], folder: Path) -> str:
    """Markdown: the papers' box AP and mask AP, operators side by side; ResNets, then Swins.

    Args:
        rows (list[dict]): Detectors that :func:`analyze` returns.
        folder (Path): Where the document lies, for its links.
    """
    tables = []
    for operators in (OF_RESNETS, OF_SWINS):
        lines: dict[tuple, dict[str, str]] = {}
        for row in rows:
            if row['paper_val'] and row['operator'] in operators:
                aps = ', '.join(map(str, row['paper_val']))
                cells = lines.setdefault(name_detector(row), {})
                cells[row['operator']] = link(aps, row, folder)
        tables.append(
            make_table(
                ('Detector, backbone', 'Image', 'Epochs', *operators.values()),
                [
                    [*key, *(cells.get(name, '') for name in operators)]
                    for key, cells in lines.items()
                ],
            )
        )
    return '\n'.join(tables)


def name_detector(row: dict) -> tuple[str, str, int]:
    """What the detectors of a line of README's tables have in common: kind, image and epochs."""
    framework = FRAMEWORKS[row['name'].partition('_')[0]]
    deformable = ', deformable' if row['deformable'] else ''
    return f'{framework}, {row["backbone"]}{deformable}', name_image(row), row['epochs']


def name_image(row: dict) -> str:
    height, width = row['image_size']
    return f'{width} x {height}' + (' keeping the ratio' if row.get('keep_ratio') else '')


def link(text: str, row: dict, folder: Path) -> str:
    """A link from a document in a folder to the config of a row."""
    return f'[{text}]({os.path.relpath(ROOT / row["config"], folder)})'


def make_table(header: Iterable, lines: Iterable[Iterable]) -> str:
    """Markdown of a table."""
    head, *body = (f'| {" | ".join(map(str, line))} |\n' for line in (header, *lines))
    return ''.join((head, '|---' * len(list(header)) + '|\n', *body))


DETECTOR_HEADER = (
    'Config',
    'Backbone, operator',
    'Epochs',
    'Image',
    'Parameters (M): all, backbone',
    'GFLOPs: dense, backbone',
    'Paper: box AP, mask AP',
    'on test-dev',
)


def detector_columns(row: dict) -> Iterator:
    deformable = ', deformable' if row['deformable'] else ''
    yield f'{row["backbone"]}, {row["operator"]}{deformable}'
    yield row['epochs']
    yield name_image(row)
    yield f'{row["parameters"] / 1e6:.2f}, {row["backbone_parameters"] / 1e6:.2f}'
    yield f'{row["flops"] / 1e9:.1f}, {row["backbone_flops"] / 1e9:.1f}'
    yield ', '.join(map(str, row['paper_val']))
    yield ', '.join(map(str, row['paper_test_dev']))


CLASSIFIER_HEADER = (
    'Config',
    'Backbone, operator',
    'Epochs',
    'Image',
    'Parameters (M): all, without position tables',
    'GFLOPs',
    'Paper: top-1, top-5',
)


def classifier_columns(row: dict) -> Iterator:
    yield f'{row["backbone"]}, {row["operator"]}'
    yield row['epochs']
    yield name_image(row)
    without_tables = row['parameters'] - row['table_parameters']
    yield f'{row["parameters"] / 1e6:.2f}, {without_tables / 1e6:.2f}'
    yield f'{row["flops"] / 1e9:.2f}'
    yield ', '.join(map(str, row['paper_top']))


def render_documents(rows: list[dict]) -> dict[Path, str]:
    """The documents that have a table, with it."""
    detectors = [row for row in rows if row['task'] == 'detection']
    classifiers = [row for row in rows if row['task'] == 'classification']
    docs = ROOT / 'docs'
    tables = {
        ROOT / 'README.md': render_results(detectors, ROOT),
        ROOT / 'README_zh-CN.md': render_results(detectors, ROOT),
        docs / 'model_table.md': render(detectors, docs),
        docs / 'pretraining.md': render(classifiers, docs),
    }
    for folder in dict.fromkeys((ROOT / row['config']).parent for row in rows):
        of_folder = [row for row in rows if (ROOT / row['config']).parent == folder]
        tables[folder / 'README.md'] = render(of_folder, folder)
    texts = {}
    for path, table in tables.items():
        before, begin, rest = path.read_text(encoding='utf-8').partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            raise UserValueError(
                f'{path} has no place for the table, between {BEGIN!r} and {END!r}'
            )
        texts[path] = before + begin + table + end + after
    return texts


def find_changed(texts: dict[Path, str]) -> list[str]:
    """The documents that differ from these texts."""
    return [
        str(path.relative_to(ROOT))
        for path, text in texts.items()
        if path.read_text(encoding='utf-8') != text
    ]


if __name__ == '__main__':
    main()
