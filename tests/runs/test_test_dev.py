"""Train on COCO images, evaluate, and write what COCO's server takes."""

import json
import shutil
import zipfile

import pytest
from pycocotools.coco import COCO

from lesa_mmdet.visualization.curves import read_scalars

from helpers.paths import DEMO, ROOT

pytestmark = pytest.mark.slow

CONFIG = str(DEMO.relative_to(ROOT))


@pytest.fixture
def coco(coco_root, tmp_path):
    """COCO's layout with a few real images; those of val2017 are the ones of test-dev, too."""
    root = tmp_path / 'coco'
    for folder in ('annotations', 'train2017', 'val2017'):
        (root / folder).mkdir(parents=True)
    for split, number in (('train2017', 12), ('val2017', 5)):
        source = coco_root / 'annotations' / f'instances_{split}_mini.json'
        content = json.loads(source.read_text(encoding='utf-8'))
        content['images'] = sorted(content['images'], key=lambda image: image['id'])[:number]
        ids = {image['id'] for image in content['images']}
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] in ids]
        (root / 'annotations' / f'instances_{split}.json').write_text(
            json.dumps(content), encoding='utf-8'
        )
        for image in content['images']:
            shutil.copy(coco_root / split / image['file_name'], root / split)
    del content['annotations']
    (root / 'annotations' / 'image_info_test-dev2017.json').write_text(
        json.dumps(content), encoding='utf-8'
    )
    (root / 'test2017').symlink_to(root / 'val2017')
    return root


@pytest.fixture
def options(coco):
    """Options that put these images into the demo's config, for one epoch."""
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    options += [f'model.roi_head.{head}_head.num_classes=80' for head in ('bbox', 'mask')]
    options += ['model.test_cfg.rcnn.score_thr=0']  # little is learnt in an epoch
    options += ['test_dataloader.batch_size=1']  # as in all configs but the demo's
    for loader, split in (('train', 'train2017'), ('val', 'val2017'), ('test', 'val2017')):
        options += [
            f'{loader}_dataloader.dataset.data_root={coco}/',
            f'{loader}_dataloader.dataset.ann_file=annotations/instances_{split}.json',
            f'{loader}_dataloader.dataset.data_prefix.img={split}/',
            f'{loader}_dataloader.dataset.metainfo=None',
        ]
    truth = coco / 'annotations' / 'instances_val2017.json'
    return [*options, f'val_evaluator.ann_file={truth}', f'test_evaluator.ann_file={truth}']


def test_train_evaluate_and_submit(coco, options, port, run, tmp_path):
    train = tmp_path / 'train'
    run('tools/train.py', CONFIG, '--work-dir', train, *options)
    assert 'coco/segm_mAP' in read_scalars(train)[-1]

    config, checkpoint = next(train.glob('*.py')), train / 'epoch_1.pth'
    submitted = []
    for gpus in (1, 2):
        command = ['tools/test_dev.py', config, checkpoint, '--gpus', gpus, '--algorithm', 'lesa']
        work_dir = ('--work-dir', tmp_path / f'test{gpus}')
        out = run(*command, *work_dir, forked=True, PORT=port)
        archives = sorted((tmp_path / f'test{gpus}').rglob('*.zip'))
        assert len(archives) == 2 and all(f'ready: {path}: ' in out for path in archives)
        for path in archives:
            assert path.name == 'detections_test-dev2017_lesa_results.zip'
            with zipfile.ZipFile(path) as archive:
                submitted.append(json.loads(archive.read(f'{path.stem}.json')))
    assert submitted[:2] == submitted[2:]  # one process and two: the same, in the same order
    images = COCO(str(coco / 'annotations' / 'image_info_test-dev2017.json'))
    for results in submitted[:2]:
        assert len(results) == 5 * 100
        assert len(images.loadRes(results).getImgIds()) == 5

    few = ('--cfg-options', 'test_dataloader.dataset.indices=4')
    out = run(*command[:3], *few, '--work-dir', tmp_path / 'few', succeeds=False)
    assert '1 images were not tested: image ' in out and 'ready: ' not in out


def test_unreadable_image_stops_or_is_replaced(coco, options, run, tmp_path):
    image = sorted((coco / 'train2017').iterdir())[0]
    image.write_bytes(image.read_bytes()[:-20])
    command = ('tools/train.py', CONFIG, '--work-dir', tmp_path / 'train', *options)
    out = run(*command, succeeds=False)
    assert f'error: {image} cannot be read: ' in out and 'Traceback' not in out

    twice = ('train_cfg.max_epochs=2', 'train_dataloader.dataset.skip_unreadable=True')
    out = run(*command, *twice)
    replaced = [line for line in out.splitlines() if str(image) in line]
    assert len(replaced) == 1 and '1 of 12 images so far' in replaced[0]
    assert read_scalars(tmp_path / 'train')[-1]['step'] == 2
