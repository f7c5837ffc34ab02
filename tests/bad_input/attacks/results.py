"""Results for the COCO server, and records of inference."""

import json
import os

from lesa_mmdet.apis.records import Records
from lesa_mmdet.evaluation.submission import pack

from helpers.bad_input import Case

SETTINGS = dict(config='a')
IMAGES = dict(
    images=[dict(id=1, file_name='1.jpg', height=64, width=64)], categories=[dict(id=1, name='a')]
)
RESULT = dict(image_id=1, category_id=1, score=0.5, bbox=[1, 2, 3, 4])
ENTRY = dict(
    source='/a.png',
    stamp=[1, 2],
    name='a.png',
    images=[dict(file_name='a.png', height=1, width=1, results=[])],
)


def packed(name, sentence, result=None, raw=None, images=IMAGES, tested=None):
    """A case of results of boxes."""

    def do(place):
        place.write('list.json', images if isinstance(images, str) else json.dumps(images))
        written = json.dumps([{**RESULT, **(result or {})}]) if raw is None else raw
        place.write('results.bbox.json', written)
        if tested is not None:
            place.write('results.images.json', tested)
        pack(str(place / 'results'), str(place / 'list.json'), 'ours')

    return Case(name, sentence, do)


def recorded(name, sentence, *lines, make=None, code=1):
    """A case of records of a former run."""

    def do(place):
        place.write('precious', 'mine')
        (place / 'out').mkdir()
        path = place / 'out' / 'records.jsonl'
        raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        make(path) if make else path.write_bytes(b''.join(line + b'\n' for line in raw))
        try:
            records = Records(place / 'out', SETTINGS)
            records.drawing(records.name('/new.png'))
            records.write_results([])
        finally:
            assert place.write('precious', 'mine').parent == place.folder
            assert sorted(os.listdir(place.folder)) == ['out', 'precious']

    return Case(f'records: {name}', sentence, do, code)


def other(**changes):
    return {**ENTRY, **changes}


CASES = [
    packed('deep', 'nested too deep', raw='[' * 200_000),
    packed('a dict', 'has to be a list of detections', raw='{}'),
    packed('text', 'has to be a list of detections', raw='"\\u001b[2J"'),
    packed('numbers', 'it lacks image_id', raw='[7]'),
    packed('a number of 5,000 digits', 'is no JSON', raw='[' + '9' * 5000 + ']'),
    packed('a score that is not a number', 'its score is nan, but', dict(score=float('nan'))),
    packed('an infinite score', 'its score is inf, but', dict(score=float('inf'))),
    packed('a score of 10^400', 'its score is a number of 1,329 bits', dict(score=10**400)),
    packed('an image that is a list', r'its image_id is \[1\], but', dict(image_id=[1])),
    packed('an image that moves the cursor', r'no image a\\x1b', dict(image_id='a\x1b[2J')),
    packed('an image of two lines', r'no image a\\nerror', dict(image_id='a\nerror: forged')),
    packed('a category that is a dict', 'its category_id is {.*}, but', dict(category_id={'a': 1})),
    packed('a box of text', 'its bbox', dict(bbox=['a'] * 4)),
    packed('a box of 10^400', 'its bbox', dict(bbox=[10**400] * 4)),
    packed('a box of three', 'its bbox', dict(bbox=[1, 2, 3])),
    packed('a list of images that is deep', 'nested too deep', images='[' * 200_000),
    packed('a list of images that is none', 'has no images', images={}),
    packed('images below 0', 'height is -1, but',
           images={**IMAGES, 'images': [dict(id=1, height=-1, width=1)]}),
    packed('tested images of text', r'\[0\] is \[\], but|images were not', tested='[[]]'),
    packed('tested images in a dict', 'is {.*}, but has to be a list', tested='{"a": 1}'),
    recorded('another kind', r'a line is \[1\], but', [1]),
    recorded('deep', 'nested too deep', b'[' * 200_000),
    recorded('binary', 'is broken, delete it', b'\xff\xfe\0'),
    recorded('other settings', 'results of another config', dict(config='b')),
    *(
        recorded(f'a name such as {name[:9]!r}', 'name is .*, but has to be the name of a file',
                 SETTINGS, other(name=name))
        for name in ('../precious', '/precious', '..', '', 'a/../../precious', 'a\\b', 'C:precious',
                     'a\0b', 'a\nb', '\ud800', 'a\u202egnp')
    ),
    recorded('a name that is a list', 'name is .*, but', SETTINGS, other(name=['a'])),
    recorded('a stamp of text', 'stamp is a, but', SETTINGS, other(stamp='a')),
    recorded('a height of 10^30', 'height is 10+, but', SETTINGS,
             other(images=[dict(file_name='a', height=10**30, width=1, results=[])])),
    recorded('results of text', r'results\[0\] is a, but', SETTINGS,
             other(images=[dict(file_name='a', height=1, width=1, results=['a'])])),
    recorded('a pipe', 'is a named pipe, but', make=os.mkfifo),
    recorded('a link', 'is a link, to which', make=lambda path: path.symlink_to('../precious')),
    recorded('drawings elsewhere', 'vis is a link, to which',
             make=lambda path: (path.parent / 'vis').symlink_to('..')),
    recorded('names of images of other folders', '', SETTINGS,
             other(images=[dict(file_name='../../precious', height=1, width=1, results=[])]),
             code=0),
]  # fmt: skip
