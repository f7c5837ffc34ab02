"""Arguments of commands, and what configs name, found before anything is built."""

from helpers.bad_input import Case
from helpers.paths import ROOT

MASK_RCNN = 'configs/mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'
HTC = 'configs/htc/htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280.py'
TRAIN, TEST, TEST_DEV = 'tools/train.py', 'tools/test.py', 'tools/test_dev.py'
HERE = f'in {ROOT}'


def command(name, sentence, *arguments, code=1):
    """A case of a command line; files below the case's folder begin with ./"""

    def do(place):
        parts = map(str, arguments)
        return [f'{place.folder}/{part[2:]}' if part.startswith('./') else part for part in parts]

    return Case(name, sentence, do, code)


def options(name, sentence, *changes):
    """A case of ``--cfg-options``."""
    return command(name, sentence, TRAIN, MASK_RCNN, '--cfg-options', *changes)


def config(name, sentence, text, tool=TRAIN):
    """A case of a config with some text."""

    def do(place):
        return [tool, place.write('config.py', text)]

    return Case(name, sentence, do)


def trained(name, sentence, change, *arguments):
    """A case of a tiny training on generated images, whose config is changed."""

    return Case(name, sentence, lambda place: [TRAIN, made(place, change), *arguments])


def made(place, change=None):
    """A config of generated images."""
    place.data()
    return place.config(change)


CASES = [
    command('train.py alone', 'train.py: error: .* required: config', TRAIN, code=2),
    command('test.py alone', 'test.py: error: .* required: config, checkpoint', TEST, code=2),
    command('test.py without a checkpoint', 'required: checkpoint', TEST, MASK_RCNN, code=2),
    command(
        'an unknown argument', 'unrecognized arguments: --wrok', TRAIN, MASK_RCNN, '--wrok', code=2
    ),
    command(
        'a config that is not there', r'^error: config gone\.py does not exist', TRAIN, 'gone.py'
    ),
    command(
        'options before the config',
        r'^error: config gone\.py',
        TRAIN,
        '--work-dir',
        './w',
        'gone.py',
    ),
    command(
        'options before config and checkpoint',
        r'^error: config gone\.py does not exist',
        *(TEST, '--work-dir', './w', 'gone.py', 'gone.pth'),
    ),
    Case(
        'options between config and a checkpoint that is not there',
        r'^error: checkpoint: gone\.pth does not exist in .*; train one with tools/train\.py',
        lambda place: [TEST, made(place), '--work-dir', place / 'w', 'gone.pth'],
    ),
    command(
        'a folder as a config',
        r'^error: configs is no config: its name has to end',
        TRAIN,
        'configs',
    ),
    command('a checkpoint as a config', r'^error: x\.pth is no config', TRAIN, 'x.pth'),
    config('a config of broken Python', r'^error: .*config\.py is no config: ', 'model = dict('),
    config(
        'a config of an unknown name', r"^error: .*config\.py is no config: .*'foo'", 'model = foo'
    ),
    config('a config without a model', r'^error: the config has no train_dataloader', 'a = 1'),
    config('a base that is not there', r'^error: .*_base_.*gone\.py', "_base_ = './gone.py'"),
    options(
        'an option without a value', r"^error: --cfg-options takes KEY=VALUE, got 'foo'", 'foo'
    ),
    command(
        'the config behind the options',
        rf"^error: --cfg-options takes KEY=VALUE, got '{MASK_RCNN}'; other arguments stand before",
        *(TRAIN, '--cfg-options', 'train_cfg.max_epochs=1', MASK_RCNN),
    ),
    options(
        'a misspelt section', 'the config has no optim_wraper; is optim_wrapper', 'optim_wraper.a=1'
    ),
    options('a misspelt value', 'has no max_epoch; is max_epochs meant', 'train_cfg.max_epoch=1'),
    options('a misspelt part of the model', 'no backbon; is backbone', 'model.backbon.depth=101'),
    options(
        'an unknown section', '^error: --cfg-options foo: the config has no foo; it has', 'foo=1'
    ),
    options(
        'a variable that is used up',
        r'^error: --cfg-options data_root changes nothing: .* set .*train_dataloader\.dataset',
        'data_root=/data/coco',
    ),
    options(
        'an index beyond a list',
        r'^error: .*pipeline\.99\.scale: the config has 5 there, from 0 on, no 99',
        'train_dataloader.dataset.pipeline.99.scale=3',
    ),
    command(
        'COCO is not there',
        r'^error: annotation file of train_dataloader: data/coco/annotations/'
        rf'instances_train2017\.json does not exist {HERE}; get COCO 2017 with tools/download_coco',
        *(TRAIN, MASK_RCNN),
    ),
    command(
        'maps for HTC are not there',
        r'^error: annotation file of train_dataloader: data/coco',
        *(TRAIN, HTC),
    ),
    trained(
        "the demo's images are not there",
        r'^error: annotation file of train_dataloader: gone/shapes/annotations/train\.json does '
        rf'not exist {HERE}; tools/demo\.py draws these',
        lambda cfg: cfg.train_dataloader.dataset.update(
            data_root='gone/shapes/', ann_file='annotations/train.json'
        ),
    ),
    trained(
        'own images are not there',
        rf'^error: annotation file of .*: mine/all\.json does not exist {HERE}; name your own',
        lambda cfg: cfg.train_dataloader.dataset.update(data_root='mine/', ann_file='all.json'),
    ),
    trained(
        'an image folder that is not there',
        r'^error: img folder of train_dataloader: .*data/gone/ does not exist; name your own in',
        lambda cfg: cfg.train_dataloader.dataset.data_prefix.update(img='gone/'),
    ),
    trained(
        'a folder as an annotation file',
        r'^error: annotation file of .*: .*annotations is a folder, but has to be a file',
        lambda cfg: cfg.train_dataloader.dataset.update(ann_file='annotations'),
    ),
    trained(
        'a file as an image folder',
        r'^error: img folder of train_dataloader: .*train\.json is a file, but has to be a folder',
        lambda cfg: cfg.train_dataloader.dataset.data_prefix.update(img='annotations/train.json'),
    ),
    trained(
        'validation is compared with other annotations',
        r'^error: val_evaluator\.ann_file is .*train\.json, but val_dataloader has the images of',
        lambda cfg: cfg.val_evaluator.update(
            ann_file=cfg.val_evaluator.ann_file.replace('instances_val', 'instances_train')
        ),
    ),
    trained(
        'truth that is not there',
        r'^error: annotation file of val_evaluator: gone\.json does not exist',
        lambda cfg: cfg.val_evaluator.update(ann_file='gone.json'),
    ),
    trained(
        'an ImageNet backbone that is not there',
        r'^error: pre-trained checkpoint: checkpoints/gone\.pth does not exist in .*; get the pre',
        lambda cfg: cfg.model.backbone.update(
            init_cfg=dict(type='Pretrained', checkpoint='checkpoints/gone.pth')
        ),
    ),
    trained(
        'a head for another number of classes',
        r'^error: train_dataloader has 6 classes \(circle, .*\), but model\.roi_head\.bbox_head\.'
        r'num_classes is 80: set the numbers to 6',
        lambda cfg: cfg.model.roi_head.bbox_head.update(num_classes=80),
    ),
    trained(
        "COCO's classes by default",
        r'^error: train_dataloader has 80 classes \(person, .*\.\.\.\), but model\.roi_head',
        lambda cfg: [
            cfg[f'{s}_dataloader'].dataset.pop('metainfo') for s in ('train', 'val', 'test')
        ],
    ),
    trained(
        'classes without a comma',
        r"^error: metainfo\.classes of train_dataloader is the text 'circle', but has to be a",
        lambda cfg: cfg.train_dataloader.dataset.update(metainfo=dict(classes='circle')),
    ),
    trained(
        'a work directory that is a file',
        r'^error: --work-dir setup\.py is a file, but has to be a folder',
        None,
        *('--work-dir', 'setup.py'),
    ),
    trained(
        'a work directory below a file',
        r'^error: --work-dir setup\.py/work cannot be written: .*setup\.py is a file, not a folder',
        None,
        *('--work-dir', 'setup.py/work'),
    ),
    trained(
        'a misspelt operator',
        r"^error: operator type 'LSEA' is unknown; available: ",
        lambda cfg: cfg.model.backbone.update(operator=dict(type='LSEA')),
    ),
    trained(
        'stages by their numbers',
        r'^error: stages_with_operator is \[2, 3\], but needs one True or False',
        lambda cfg: cfg.model.backbone.update(stages_with_operator=[2, 3]),
    ),
    trained(
        'a learning rate beyond all numbers',
        r'^error: the loss is (nan|inf) in iteration 2: .*lower the learning rate',
        lambda cfg: (cfg.optim_wrapper.optimizer.update(lr=1e30), cfg.pop('param_scheduler')),
    ),
]
