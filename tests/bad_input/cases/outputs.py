"""What commands write: found before the work is done if it cannot be; results of earlier runs."""

import json

import numpy as np
import torch
from pycocotools import mask as coco_mask

from lesa_mmdet.datasets.shapes import generate
from lesa_mmdet.evaluation.submission import CocoSubmission, pack

from helpers.bad_input import Case
from helpers.paths import DEMO

MASK_RCNN = 'configs/mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'
COMPARE, MAP = 'tools/analysis/compare.py', 'tools/analysis/attention_map.py'
WEIGHTS, CURVES = 'tools/analysis/term_weights.py', 'tools/plot_curves.py'
TEST_DEV, CONVERT, CROP = 'tools/test_dev.py', 'tools/convert_checkpoint.py', 'tools/crop_coco.py'


def command(name, sentence, *arguments, code=1):
    """A case of a command line; files below the case's folder begin with ./"""

    def do(place):
        parts = map(str, arguments)
        return [f'{place.folder}/{part[2:]}' if part.startswith('./') else part for part in parts]

    return Case(name, sentence, do, code)


def with_model(name, sentence, make, code=1):
    """A case that has a config, its checkpoint and a folder of images."""

    def do(place):
        root = place.data()
        config = place.config()
        return make(place, config, place.checkpoint(config), root / 'val')

    return Case(name, sentence, do, code)


def compare(*arguments):
    return lambda place, config, checkpoint, images: [
        *(COMPARE, images, '--models', config, checkpoint),
        *(str(argument).replace('./', f'{place.folder}/') for argument in arguments),
    ]


def attention_map(*arguments):
    return lambda place, config, checkpoint, images: [
        *(MAP, images / 'shapes_000000.jpg', config, checkpoint, '--point', 3, 3),
        *(str(argument).replace('./', f'{place.folder}/') for argument in arguments),
    ]


def logged(place, *lines):
    """A work directory in which a training has logged something."""
    place.write('run/20260101_000000/vis_data/scalars.json', '\n'.join(lines) + '\n')
    return place / 'run'


def submission(place, *files):
    """Results of an earlier run for test-dev, and what they are checked with."""
    images = [{'id': 1, 'file_name': '1.jpg', 'height': 4, 'width': 4}]
    content = {'images': images, 'categories': [{'id': 1, 'name': 'circle'}]}
    place.write('annotations/image_info_test-dev2017.json', json.dumps(content))
    mask = coco_mask.encode(np.eye(4, dtype=np.uint8, order='F'))
    mask = {'size': [4, 4], 'counts': mask['counts'].decode()}
    results = [{'image_id': 1, 'category_id': 1, 'score': 0.5, 'bbox': [0, 0, 2, 2]}]
    for kind in files:
        found = [{**results[0], 'segmentation': mask}] if kind == 'segm' else results
        place.write(f'results.{kind}.json', json.dumps(found))
    return str(place / 'results'), str(place / 'annotations' / 'image_info_test-dev2017.json')


def evaluate_boxes_after_masks(place):
    """A run of masks, then one of boxes in the same folder: are the masks packed again?"""
    prefix, ann_file = submission(place, 'bbox', 'segm')
    pack(prefix, ann_file, 'first')
    metric = CocoSubmission('second', ann_file, prefix, metric='bbox')
    metric.dataset_meta = dict(classes=('circle',))
    empty = torch.zeros(1)
    found = dict(img_id=1, bboxes=torch.ones(1, 4).numpy(), scores=empty.numpy(), labels=[0])
    metric.compute_metrics([(dict(img_id=1, width=4, height=4), found)])
    archives = sorted(path.name for path in place.folder.rglob('*.zip'))
    print('archives:', *archives)


CASES = [
    with_model(
        'compare: a folder gets compare.png',
        r'/out/compare\.png$',
        lambda place, *rest: [(place / 'out').mkdir(), compare('--out', './out')(place, *rest)][1],
        code=0,
    ),
    with_model(
        'compare: no picture',
        r'^error: --out .*/x\.txt has to end with \.png',
        compare('--out', './x.txt'),
    ),
    with_model(
        'compare: no suffix', r'^error: --out .*/x has to end with \.png', compare('--out', './x')
    ),
    with_model(
        'compare: below a file',
        r'^error: --out .*config\.py/x\.png cannot be written: .* is a file, not a folder',
        compare('--out', './config.py/x.png'),
    ),
    with_model(
        'map: a picture of another kind', r'/x\.jpg$', attention_map('--out', './x.jpg'), code=0
    ),
    with_model(
        'map: no picture', r'^error: --out .*/x\.txt has to end', attention_map('--out', './x.txt')
    ),
    with_model(
        'map: one file for several layers',
        r'^error: --out .*x\.png is one file for \d+ layers: name a folder',
        attention_map('--out', './x.png', '--layer', 'all'),
    ),
    with_model(
        'map: an unknown layer',
        r"^error: layer 'layer9' has no op",
        attention_map('--layer', 'layer9'),
    ),
    with_model(
        'map: a point beyond the image',
        r'^error: .*\(99, 99\)|^error: .*99.*64',
        lambda place, config, checkpoint, images: [
            *(MAP, images / 'shapes_000000.jpg', config, checkpoint, '--point', 99, 99)
        ],
    ),
    with_model(
        'map: an image that is not there',
        r'^error: .*gone\.jpg',
        lambda place, config, checkpoint, images: [
            MAP,
            'gone.jpg',
            config,
            checkpoint,
            '--point',
            3,
            3,
        ],
    ),
    with_model(
        'compare: images that are not there',
        r'^error: gone is neither an image nor a folder of images',
        lambda place, config, checkpoint, images: [COMPARE, 'gone', '--models', config, checkpoint],
    ),
    with_model(
        'compare: a file that is no image',
        r'^error: .*config\.py',
        lambda place, config, checkpoint, images: [COMPARE, config, '--models', config, checkpoint],
    ),
    with_model(
        'compare: a device that there is not',
        r"^error: device 'gpu' cannot be used",
        compare('--device', 'gpu'),
    ),
    *(
        with_model(
            f'term weights: {option} below a file',
            rf'^error: {option} .*cannot be written: .* is a file, not a folder',
            lambda place, config, checkpoint, images, option=option, name=name: [
                *(WEIGHTS, config, checkpoint, option, f'{config}/{name}')
            ],
        )
        for option, name in (('--json', 'x.json'), ('--plot', 'x.png'))
    ),
    with_model(
        'term weights: of no image',
        r'^error: --num-images has to be at least 1, got 0',
        lambda place, config, checkpoint, images: [WEIGHTS, config, checkpoint, '--num-images', 0],
    ),
    with_model(
        'test.py: predictions into something else than a pickle',
        r'^error: --out .*x\.json has to end with \.pkl, \.pickle',
        lambda place, config, checkpoint, images: [
            *('tools/test.py', config, checkpoint, '--out', place / 'x.json')
        ],
    ),
    command(
        'curves: nothing is logged',
        r'^error: no .*scalars\.json in .*gone',
        CURVES,
        './gone',
        '--out',
        './x.png',
    ),
    Case(
        'curves: a line that is cut off is said and skipped',
        r'^curves: .*x\.png$',
        lambda place: [
            CURVES,
            logged(
                place,
                '{"step": 1, "coco/bbox_mAP": 0.1}',
                '{"step": 2, "coco/bbox_mAP": 0.2}',
                '{"step": 3, "co',
            ),
            *('--out', place / 'x.png'),
        ],
        code=0,
    ),
    Case(
        'curves: no picture',
        r'^error: --out .*/x has to end with \.png',
        lambda place: [
            CURVES,
            logged(place, '{"step": 1, "coco/bbox_mAP": 0.1}'),
            '--out',
            place / 'x',
        ],
    ),
    Case(
        'curves: a key that is not logged',
        r"^error: run has not logged 'x', but \['coco/bbox_mAP', 'step'\]",
        lambda place: [
            *(CURVES, logged(place, '{"step": 1, "coco/bbox_mAP": 0.1}'), '--out', place / 'x.png'),
            *('--keys', 'x'),
        ],
    ),
    Case(
        'curves: two runs of a name',
        r'^error: 2 runs need as many different names, but have run, run: name them with --labels',
        lambda place: [
            *(CURVES, *2 * [logged(place, '{"step": 1, "coco/bbox_mAP": 0.1}')]),
            *('--out', place / 'x.png'),
        ],
    ),
    command(
        'test-dev: a config that is not there',
        r'^error: config gone\.py does not',
        TEST_DEV,
        'gone.py',
    ),
    *(
        command(
            f'test-dev: {number} processes',
            rf'^error: --gpus has to be at least 1, also without a GPU, got {number}',
            *(TEST_DEV, MASK_RCNN, 'x.pth', '--gpus', number),
        )
        for number in (0, -1)
    ),
    command(
        'test-dev: a checkpoint that is not there',
        r'^error: checkpoint: gone\.pth does not exist in',
        *(TEST_DEV, MASK_RCNN, 'gone.pth'),
    ),
    command(
        'test-dev: images that are not there',
        r'^error: .*image_info_test-dev2017\.json does not exist; get test-dev with: python',
        *(TEST_DEV, MASK_RCNN, '--work-dir', './work'),
    ),
    command(
        'test-dev: a work directory that is a file',
        r'^error: --work-dir setup\.py is a file, but has to be a folder',
        *(TEST_DEV, MASK_RCNN, '--work-dir', 'setup.py'),
    ),
    Case(
        'test-dev: masks of an earlier run are not packed',
        r'^archives: detections_test-dev2017_second_results\.zip$',
        evaluate_boxes_after_masks,
        code=0,
    ),
    Case(
        'results: none',
        r'^error: neither .*gone\.bbox\.json nor .*gone\.segm\.json is there',
        lambda place: ['tools/pack_results.py', place / 'gone', submission(place)[1], 'lesa'],
    ),
    Case(
        'results: a name with a slash',
        r"^error: algorithm is 'a/b', but may have letters, digits",
        lambda place: ['tools/pack_results.py', *submission(place, 'bbox'), 'a/b'],
    ),
    Case(
        'results: a list of images that is not there',
        r'^error: .*gone\.json',
        lambda place: ['tools/pack_results.py', submission(place, 'bbox')[0], 'gone.json', 'lesa'],
    ),
    Case(
        'results: a file that is cut off',
        r'^error: .*results\.bbox\.json is no JSON, or it is truncated',
        lambda place: (
            submission(place),
            place.write('results.bbox.json', '[{"image_id": 1'),
            ['tools/pack_results.py', *submission(place), 'lesa'],
        )[-1],
    ),
    command(
        'convert: a checkpoint that is not there',
        r'^error: checkpoint: gone\.pth does not exist in',
        *(CONVERT, 'gone.pth', './x.pth'),
    ),
    Case(
        'convert: into something else than a checkpoint',
        r'^error: the file to write, .*x\.txt has to end with \.pth, \.pt',
        lambda place: [CONVERT, saved(place, dict(net={})), place / 'x.txt'],
    ),
    Case(
        'convert: a file without weights',
        r"^error: .*has no weights, only \['epoch'\]",
        lambda place: [CONVERT, saved(place, dict(epoch=3)), place / 'x.pth'],
    ),
    Case(
        'convert: a file that is no checkpoint',
        r'^error: .*a\.pth is not a checkpoint of torch\.save, or it is truncated',
        lambda place: [CONVERT, place.write('a.pth', '<html>'), place / 'x.pth'],
    ),
    Case(
        'convert: weights that are a list',
        r'^error: .*has no state dict, only a list',
        lambda place: [CONVERT, saved(place, [1, 2]), place / 'x.pth'],
    ),
    command(
        'crops: a data set that is not there',
        r'^error: .*gone.* has no annotations/',
        *(CROP, 'gone', './crops'),
    ),
    *(
        Case(
            f'crops: {name}',
            sentence,
            lambda place, arguments=arguments: [CROP, place.data(), place / 'crops', *arguments],
        )
        for name, sentence, arguments in (
            ('more classes than there are', r'^error: 99 classes are asked for', ('--classes', 99)),
            (
                'an unknown class',
                r"^error: unknown class 'cat'; there are: circle",
                ('--classes', 'cat', 'dog'),
            ),
            ('no class', r'^error: classes is 0, but must be at least 1', ('--classes', 0)),
            ('no size', r'^error: min_size is 0, but must be at least 1', ('--min-size', 0)),
            ('a negative margin', r'^error: context is -1', ('--context', -1)),
            (
                'a split alone',
                r'^error: --split has to name train and val',
                ('--split', 'train', 'a', 'b'),
            ),
        )
    ),
    Case(
        'crops: a folder of something else',
        r'^error: .* exists, but not as a folder of crops: name another one',
        lambda place: [CROP, place.data(), place / 'data', '--classes', 2, '--min-size', 1],
    ),
    command(
        'table: no config',
        r'^error: docs is no config of the model index',
        'tools/model_table.py',
        'docs',
    ),
    command(
        'table: --write of some',
        r'--write and --check are for the tables of all configs: name none',
        *('tools/model_table.py', '--write', DEMO),
        code=2,
    ),
    command(
        'demo: a work directory that is a file',
        r'^error: --work-dir setup\.py is a file, but has to be a folder',
        *('tools/demo.py', '--work-dir', 'setup.py'),
    ),
    *(
        Case(
            f'shapes: {name}={value!r}',
            rf'ValueError: {name} is {value!r}, but must be an integer of at least \d+',
            lambda place, name=name, value=value: generate(place / 'shapes', **{name: value}),
        )
        for name, value in (('num_train', 0), ('num_val', -1), ('image_size', 32), ('seed', 1.5))
    ),
    command(
        'download: a server that is not there',
        r'^error: http://127\.0\.0\.1:9/.*cannot be reached',
        *('tools/download_coco.py', './coco', '--mirror', 'http://127.0.0.1:9'),
    ),
    command(
        'download: an unknown part',
        r"invalid choice: 'vla'",
        *('tools/download_coco.py', './coco', '--parts', 'vla'),
        code=2,
    ),
    *(
        command(
            f'{benchmark}: a config that is not there',
            r'^error: config gone\.py does not exist',
            *(f'benchmarks/{benchmark}.py', 'gone.py'),
        )
        for benchmark in ('train_step',)
    ),
    *(
        command(
            f'{benchmark}: figures below a file',
            r'^error: --json setup\.py/x\.json cannot be written',
            *(f'benchmarks/{benchmark}.py', '--json', 'setup.py/x.json'),
        )
        for benchmark in ('attention', 'detector', 'pretrain')
    ),
]


def saved(place, content):
    """A file of torch.save."""
    torch.save(content, place / 'saved.pth')
    return place / 'saved.pth'
