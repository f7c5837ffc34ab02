"""What people have reported of other projects, tried here."""

import json
import os

import cv2
import numpy as np

from lesa_mmdet.apis import infer
from lesa_mmdet.utils.images import VideoWriter

from helpers.bad_input import Case

TRAIN, INFER = 'tools/train.py', 'tools/infer.py'


def resumed(name, sentence, note):
    """A case of ``--resume`` in a work directory with a checkpoint and a note of the last one."""

    def do(place):
        place.data()
        config = place.config()
        place.write('work/last_checkpoint')
        place.checkpoint(config).rename(place / 'work' / 'epoch_1.pth')
        if callable(note):
            note(place / 'work')
        else:
            (place / 'work' / 'last_checkpoint').write_text(note, encoding='utf-8')
        return [TRAIN, config, '--resume']

    return Case(f'resume: {name}', sentence, do)


def make_pipe(work_dir):
    os.mkfifo(work_dir / 'epoch_2.pth')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'), encoding='utf-8')


def make_folder(work_dir):
    (work_dir / 'last_checkpoint').unlink()
    (work_dir / 'last_checkpoint').mkdir()


def ids(key, change):
    """An edit of the ids of all entries of a kind."""

    def edit(place):
        root = place.data()
        path = root / 'annotations' / 'instances_val.json'
        content = json.loads(path.read_text(encoding='utf-8'))
        for index, entry in enumerate(content[key]):
            entry['id'] = change(index, entry['id'])
        path.write_text(json.dumps(content), encoding='utf-8')
        return [TRAIN, place.config()]

    return edit


def film(place, size):
    path = str(place / 'film.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 10, size)
    writer.write(np.zeros((*size[::-1], 3), np.uint8))
    writer.release()
    return path


def draw_wide_film(place):
    place.data()
    config = place.config()
    source = film(place, (8200, 16))
    return [INFER, source, config, place.checkpoint(config), '--out-dir', place / 'out']


def infer_from_nothing(place):
    place.data()
    config = place.config()
    infer(place / 'none', config, place.checkpoint(config), place / 'out')


CASES = [
    resumed(
        'the last checkpoint is gone',
        r'^error: .*last_checkpoint names .*epoch_9\.pth .*, which does not exist',
        '/gone/epoch_9.pth',
    ),
    resumed(
        'the last checkpoint is a pipe',
        r'^error: .*epoch_2\.pth as the last checkpoint, which is no file',
        make_pipe,
    ),
    resumed(
        'the last checkpoint is elsewhere',
        r'^error: .*https://host/epoch_1\.pth as the last checkpoint, which is not in .*work',
        'https://host/epoch_1.pth',
    ),
    resumed(
        'the note of the last checkpoint is a folder',
        r'^error: .*last_checkpoint is no file, but has to be the note of a training',
        make_folder,
    ),
    resumed(
        'a checkpoint to be evaluated alone, noted by nobody',
        r'^error: no checkpoint of .* can be resumed from: .*epoch_1\.pth has no ',
        '',
    ),
    Case(
        'annotations: ids that are texts are evaluated',
        r"^error: .*instances_val\.json: annotation 'a0' of image 1 has an id that is no number",
        ids('annotations', lambda index, _: f'a{index}'),
    ),
    Case(
        'categories: ids of two kinds are evaluated',
        r'^error: .*instances_val\.json: (classes have ids of several kinds|none of its)',
        ids('categories', lambda index, number: number if index else 'first'),
    ),
    Case(
        'a film that is too wide for MPEG-4',
        r'^ +video .*film\.mp4 cannot be written: OpenCV makes no MPEG-4 of 8200 x 16 pixels',
        draw_wide_film,
    ),
    Case(
        'a film of a width that no video has',
        r'^UserValueError: video film\.mp4 cannot be written: OpenCV makes no MPEG-4 of 0 x 0',
        lambda place: VideoWriter('film.mp4', 25, (0, 0)),
    ),
    Case(
        'one folder that is not there',
        r'^UserFileNotFoundError: .*none is neither an image nor a folder of images',
        infer_from_nothing,
    ),
]
