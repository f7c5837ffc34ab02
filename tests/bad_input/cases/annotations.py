"""Annotation files of one's own: what a training and an evaluation say, and check_dataset."""

import torch
from mmdet.structures import DetDataSample
from PIL import Image

from lesa_mmdet.apis.load import load_model

from helpers.bad_input import Case

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'crescent')


def trained(name, sentence, change=None, configured=None, files=lambda root: None, split='train'):
    """A case of a training on changed annotations and files, with a changed config."""

    def do(place):
        files(place.data(change, split))
        return ['tools/train.py', place.config(configured)]

    return Case(f'train: {name}', sentence, do)


def tested(name, sentence, change=None, configured=None):
    """A case of an evaluation on changed annotations."""

    def do(place):
        place.data(change, split='val')
        config = place.config(configured)
        return ['tools/test.py', config, place.checkpoint(config)]

    return Case(f'test: {name}', sentence, do)


def checked(name, sentence, change=None, *arguments, files=lambda root: None, code=1):
    """A case of check_dataset on changed annotations and images. Its last line has the total."""

    def do(place):
        root = place.data(change)
        files(root)
        split = ('--split', 'annotations/instances_train.json', 'train')
        return ['tools/check_dataset.py', root, *split, *arguments]

    return Case(f'check: {name}', sentence, do, code)


def every(**changes):
    return lambda content: [entry.update(changes) for entry in content['annotations']]


def first(**changes):
    return lambda content: content['annotations'][0].update(changes)


def without(key, part='annotations'):
    return lambda content: [entry.pop(key) for entry in content[part]]


def to_corners(content):
    for entry in content['annotations']:
        x, y, w, h = entry['bbox']
        entry['bbox'] = [x, y, x + w, y + h]


def to_text(*keys):
    """An edit that makes texts of ids."""

    def change(content):
        for part, key in keys:
            for entry in content[part]:
                entry[key] = str(entry[key])

    return change


def asks_for(*classes):
    """A change of the config: other classes, in as many heads."""

    def change(cfg):
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=classes)
        for head in ('bbox_head', 'mask_head'):
            cfg.model.roi_head[head].num_classes = len(classes)

    return change


def boxes_only(cfg):
    for split in ('train', 'val', 'test'):
        for step in cfg[f'{split}_dataloader'].dataset.pipeline:
            if step.type == 'LoadAnnotations':
                step.with_mask = False


def write_annotations(text):
    return lambda root: (root / 'annotations' / 'instances_train.json').write_text(
        text, encoding='utf-8'
    )


def overwrite(content):
    """An edit that leaves nothing of a file."""
    content.clear()


FILE = r'^error: .*data/annotations/instances_train\.json: '
VAL_FILE = r'^error: .*data/annotations/instances_val\.json: '
HAS = r'it has 6 categories \(circle, square, .*\), but metainfo\.classes asks for '


def detect_in_a_huge_image(place):
    """The tiny detector, given an image of 40 gigapixels that was scaled down for it."""
    place.data()
    model = load_model(place.config(), place.checkpoint(place / 'config.py'))
    image = DetDataSample(metainfo=dict(ori_shape=(200_000, 200_000), img_path='huge.tif'))
    model(torch.rand(1, 3, 64, 64), [image], mode='predict')


CASES = [
    Case(
        'test: masks at the size of a huge image',
        r'MemoryError: huge\.tif is 200000 x 200000: the masks of 32 detections take up to .* GiB '
        r'at that size, and .* GiB of memory are free; lower model\.test_cfg\.rcnn\.max_per_img',
        detect_in_a_huge_image,
    ),
    trained(
        'a class that the file has not',
        FILE + HAS + r'6 \(circle, sqare, ',
        None,
        asks_for('circle', 'sqare', *CLASSES[2:]),
    ),
    trained(
        'classes in another order', FILE + HAS + r'6 \(crescent, ', None, asks_for(*CLASSES[::-1])
    ),
    trained(
        'classes of something else', FILE + HAS + r'2 \(cat, dog\)', None, asks_for('cat', 'dog')
    ),
    trained(
        'a class twice', FILE + HAS + r'2 \(circle, circle\)', None, asks_for('circle', 'circle')
    ),
    trained(
        'two categories of a name',
        FILE + r'it has 6 categories \(circle, circle, ',
        lambda content: content['categories'][1].update(name='circle'),
    ),
    trained(
        'no classes',
        r'metainfo\.classes of train_dataloader|metainfo\.classes is None',
        None,
        lambda cfg: cfg.train_dataloader.dataset.update(metainfo=dict(classes=None)),
    ),
    trained(
        'category ids that no category has',
        FILE
        + r'none of its \d+ objects can be used: \d+ have a category_id that is none of 1, 2, 3',
        every(category_id=77),
    ),
    trained(
        'category ids from 0 on that are meant from 1 on',
        FILE + r'none of its .* category_id that is none of 1, 2, 3',
        every(category_id=0),
    ),
    trained(
        'image ids that no image has',
        FILE
        + r'none of its .* image_id that no image has, such as 99 \(the images have ids such as 1',
        every(image_id=99),
    ),
    trained(
        'image ids that are texts in one place alone',
        FILE
        + r"none of its .* image_id that no image has, such as '1' \(the images have ids such as 1",
        to_text(('annotations', 'image_id')),
    ),
    trained(
        'category ids that are texts in one place alone',
        FILE + r'none of its .* category_id that is none of 1, 2, 3',
        to_text(('annotations', 'category_id')),
    ),
    trained(
        'no annotations', FILE + r'it has images, but no object', lambda c: c.pop('annotations')
    ),
    trained(
        'empty annotations',
        FILE + r'it has images, but no object',
        lambda c: c.update(annotations=[]),
    ),
    trained('no images', r'instances_train\.json has no images', lambda c: c.update(images=[])),
    trained(
        'no list of images',
        r"instances_train\.json.*(has no images|no 'images')",
        lambda c: c.pop('images'),
    ),
    trained('no categories', FILE + r".*has no 'categories'", lambda c: c.pop('categories')),
    trained('an empty file', FILE, overwrite),
    trained(
        'crowds alone',
        FILE + r'none of its \d+ objects can be used: \d+ are crowds',
        every(iscrowd=1),
    ),
    trained('no area', FILE + r'annotation 1 of image 1 has no area', without('area')),
    trained('no box', FILE + r'annotation 1 of image 1 has no bbox', without('bbox')),
    trained(
        'no category', FILE + r".* an entry in it, has no 'category_id'", without('category_id')
    ),
    trained('no file name', FILE + r".*has no 'file_name'", without('file_name', 'images')),
    trained('no height', FILE + r".*has no 'height'", without('height', 'images')),
    trained(
        'annotation ids twice',
        FILE + r'annotation 1 .* has an id that another one has',
        every(id=1),
    ),
    trained(
        'a box of three numbers', FILE + r'.* has the bbox \[1, 2, 3\], but', first(bbox=[1, 2, 3])
    ),
    trained('a box of texts', FILE + r".* has the bbox \['1', ", first(bbox=['1', '2', '3', '4'])),
    trained(
        'a box that is not a number',
        FILE + r'.* has the bbox \[nan',
        first(bbox=[float('nan'), 1, 2, 3]),
    ),
    trained(
        'boxes of two corners',
        FILE + r'boxes are \[left, top, right, bottom\] by their masks',
        to_corners,
    ),
    trained(
        'boxes of two corners without masks',
        FILE + r'boxes are \[left, top, right, bottom\] by their masks or areas',
        lambda content: (
            [e.update(area=e['bbox'][2] * e['bbox'][3]) for e in content['annotations']],
            without('segmentation')(content),
            to_corners(content),
        ),
        boxes_only,
    ),
    trained(
        'no masks for a detector of masks',
        FILE + r'no object has a mask \(segmentation\), but',
        without('segmentation'),
    ),
    trained('areas of nothing', FILE + r'none of its \d+ objects can be used', every(area=0)),
    trained(
        'validation without iscrowd is found before the training',
        VAL_FILE + r'annotation 1 of image 1 has no iscrowd',
        without('iscrowd'),
        split='val',
    ),
    trained('an annotation file that is no JSON', FILE, files=write_annotations('{"images": [')),
    trained(
        'an annotation file that is a list',
        FILE + '.*not supported',
        files=write_annotations('[]'),
    ),
    trained(
        'an image that is damaged',
        r'^error: .*shapes_00000\d\.jpg cannot be read: .*skip_unreadable=True',
        files=lambda root: [path.write_bytes(b'<html>') for path in root.glob('train/*.jpg')],
    ),
    trained(
        'an image that is missing, found by a worker',
        r'^error: .*shapes_00000\d\.jpg cannot be read: .*skip_unreadable=True',
        None,
        lambda cfg: cfg.train_dataloader.update(num_workers=1),
        files=lambda root: [path.unlink() for path in root.glob('train/*.jpg')],
    ),
    tested(
        'no annotations', VAL_FILE + 'it has images, but no object', lambda c: c.pop('annotations')
    ),
    tested('no iscrowd', VAL_FILE + 'annotation 1 of image 1 has no iscrowd', without('iscrowd')),
    tested('no area', VAL_FILE + 'annotation 1 of image 1 has no area', without('area')),
    tested('no masks', VAL_FILE + 'no object has a mask', without('segmentation')),
    tested('classes in another order', VAL_FILE + HAS, None, asks_for(*CLASSES[::-1])),
    tested(
        'a head for other classes',
        r'^error: test_dataloader has 6 classes .* model\.roi_head\.bbox_head\.num_classes is 7',
        None,
        lambda cfg: cfg.model.roi_head.bbox_head.update(num_classes=7),
    ),
    *(
        checked(name, r'^[\d,]+ problems$', change)
        for name, change in (
            ('no area', without('area')),
            ('no iscrowd', without('iscrowd')),
            ('no annotations', lambda content: content.pop('annotations')),
            ('empty annotations', lambda content: content.update(annotations=[])),
            ('no images', lambda content: content.update(images=[])),
            ('no list of images', lambda content: content.pop('images')),
            ('no masks', without('segmentation')),
            ('crowds alone', every(iscrowd=1)),
            ('boxes of two corners', to_corners),
            ('category ids from 0 on', every(category_id=0)),
            ('two categories of a name', lambda c: c['categories'][1].update(name='circle')),
            ('no names of categories', without('name', 'categories')),
        )
    ),
    checked(
        'no masks, but for boxes', '^0 problems$', without('segmentation'), '--boxes-only', code=0
    ),
    checked(
        'an image of 180 megapixels is no problem of its own',
        '^0 problems$',
        lambda content: content['images'][0].update(width=15_000, height=12_000),
        '--sizes-only',
        files=lambda root: Image.new('1', (15_000, 12_000)).save(
            root / 'train' / 'shapes_000000.jpg', 'PNG'
        ),
        code=0,
    ),
    Case(
        'check: a folder without annotations',
        r'^error: .* has no annotations/instances_\*\.json or image_info_\*\.json: name annotation',
        lambda place: ['tools/check_dataset.py', place.folder],
    ),
    Case(
        'check: an annotation file that is not there',
        r'^error: no annotation file .*gone\.json: name it with --split',
        lambda place: ['tools/check_dataset.py', place.folder, '--split', 'gone.json', 'train'],
    ),
    Case(
        'check: a data set that is not there',
        r'^error: gone is no folder|^error: gone has no annotations/',
        lambda place: ['tools/check_dataset.py', 'gone'],
    ),
]
