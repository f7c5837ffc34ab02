"""Annotations and images of strangers, as check_dataset finds them."""

import json
import os
import struct
import zlib

from PIL import Image

from lesa_mmdet.datasets.check import check_dataset
from lesa_mmdet.utils.errors import UserValueError

from helpers.bad_input import Case

SIDE = 131_072
PRECIOUS = '../../precious.png'


def content():
    """An image with an object."""
    polygon = [2, 2, 40, 2, 40, 40]
    entry = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 38, 38], area=700, iscrowd=0)
    return dict(
        images=[dict(id=1, file_name='1.png', width=64, height=64)],
        categories=[dict(id=1, name='a')],
        annotations=[dict(entry, segmentation=[polygon])],
    )


def checked(name, sentence, change=None, raw=None, image=None, split='instances_train.json'):
    """A case of annotations that are changed, or of their text, and of an image's bytes."""

    def do(place):
        root = place / 'root'
        (root / 'annotations').mkdir(parents=True)
        (root / 'train').mkdir()
        Image.new('RGB', (64, 64)).save(place / 'root' / 'train' / '1.png')
        made = content()
        if change:
            change(made)
        written = json.dumps(made) if raw is None else raw
        written = written if isinstance(written, bytes) else written.encode()
        (root / 'annotations' / split).write_bytes(written)
        if callable(image):
            (root / 'train' / '1.png').unlink()
            image(root / 'train' / '1.png')
        elif image is not None:
            (root / 'train' / '1.png').write_bytes(image)
        report = check_dataset(root)
        assert all(map(str.isprintable, report.to_text().splitlines())), report.to_text()
        for texts in report.problems.values():
            raise UserValueError(texts[0])

    return Case(name, sentence, do)


def chunk(kind, data):
    """A chunk of a PNG."""
    body = kind + data
    return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))


def png(width, height, packed, extra=b''):
    """A gray PNG that says that it has so many pixels."""
    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b'IHDR', header) + extra + chunk(b'IDAT', packed) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


def blank(width, height):
    """A whole PNG of one color, a thousandth of its pixels."""
    packed = zlib.compressobj(1)
    row = bytes(1 + width)
    return png(
        width, height, b''.join(packed.compress(row) for _ in range(height)) + packed.flush()
    )


def bomb():
    """300 MB, deflated."""
    packed = zlib.compressobj(1)
    return b''.join([packed.compress(bytes(1_000_000)) for _ in range(300)]) + packed.flush()


def write(make):
    """What writes an image that takes long to make."""
    return lambda path: path.write_bytes(make())


def entry(part='annotations', **changes):
    return lambda made: made[part][0].update(changes)


def both(*changes):
    return lambda made: [change(made) for change in changes]


def size(width, height):
    return entry('images', width=width, height=height)


ZIGZAG = [SIDE * ((i // 2 + i) % 2) for i in range(100_000)]
CASES = [
    checked('deep', 'nested too deep', raw='[' * 200_000),
    checked('truncated', 'is no JSON, or it is truncated', raw='{"images": ['),
    checked('binary', 'is no JSON, or it is truncated', raw=bytes(range(256))),
    checked('a number of 5,000 digits', 'is no JSON', raw='[' + '9' * 5000 + ']'),
    checked('a list', r'the file is \[1\], but', raw='[1]'),
    checked('UTF-16', 'but the image is 32 x 64',
            raw=json.dumps({**content(), 'images': [
                dict(id=1, file_name='1.png', width=32, height=64)]}).encode('utf-16')),
    checked('a width of 10^400', 'width is a number of 1,329 bits', size(10**400, 64)),
    checked('a width below 0', 'width is -64, but', size(-64, 64)),
    checked('a width that is not a number', 'width is nan, but', size(float('nan'), 64)),
    checked('a name that is a surrogate', r'file_name is \\ud800, but',
            entry('images', file_name='\ud800')),
    checked('a name of 1 MB', 'File name too long|is too long|a+',
            entry('images', file_name='a' * 1_000_000)),
    checked('a name with a null byte', 'null', entry('images', file_name='a\0b')),
    checked('a name of another folder', 'precious|No such', entry('images', file_name=PRECIOUS)),
    checked('a device', r'is a device, but has to be', entry('images', file_name='/dev/zero')),
    checked('a pipe', 'is a named pipe, but has to be', image=os.mkfifo),
    checked('a folder', 'is a folder, but has to be', image=os.mkdir),
    checked('a category that moves the cursor', r'name a\\x1b|id 1',
            lambda made: made['categories'].extend([dict(id=1, name='a\x1b[2J')])),
    checked('a category twice, of two lines', r'name a\\nb',
            lambda made: made.update(categories=[dict(id=i, name='a\nb') for i in (1, 2)])),
    checked('ids that are lists', r'id is \[1\], but', entry(id=[1])),
    checked('ids that turn the line', r'annotation a\\u202e', entry(id='a\u202e', area=None)),
    checked('a box of text', "bbox .* but must be", entry(bbox=['a', 'b', 'c', 'd'])),
    checked('a box of 10^400', 'bbox .* but must be', entry(bbox=[10**400, 0, 1, 1])),
    checked('an infinite box', 'bbox .* but must be', entry(bbox=[float('inf'), 0, 1, 1])),
    checked('an area that is not a number', 'area nan', entry(area=float('nan'))),
    checked('run lengths of 10^30', 'not whole numbers of pixels',
            entry(segmentation=dict(size=[64, 64], counts=[10**30]))),
    checked('run lengths of 2^62', 'not whole numbers of pixels',
            entry(segmentation=dict(size=[64, 64], counts=[1 << 62] * 4))),
    checked('run lengths below 0', 'run lengths for',
            entry(segmentation=dict(size=[64, 64], counts=[-1, 4097]))),
    checked('run lengths of damaged text', 'damaged text',
            entry(segmentation=dict(size=[64, 64], counts='~' * 99))),
    checked('run lengths of another size', r'but the image has \[64, 64\]',
            entry(segmentation=dict(size=[10**9, 10**9], counts='0'))),
    checked('a polygon of text', 'something else than numbers', entry(segmentation=[['1'] * 8])),
    checked('a polygon far away', 'beyond 128 pixels', entry(segmentation=[[1e30] * 8])),
    checked('a polygon that is not a number', 'beyond 128',
            entry(segmentation=[[float('nan')] * 8])),
    checked('a polygon of 10^400', 'something else', entry(segmentation=[[10**400] * 8])),
    checked('a polygon to and fro', 'outline of [0-9,]+ pixels',
            both(size(SIDE, SIDE), entry(segmentation=[ZIGZAG]))),
    checked('a deep segmentation', 'polygon', entry(segmentation=[[[[[[1]]]]]])),
    checked('a name of a file that moves the cursor', 'no JSON', raw='[',
            split='instances_\x1b[2J.json'),
    checked('an image of 17 billion pixels', 'Image size .17179869184 pixels. exceeds',
            size(SIDE, SIDE), image=png(SIDE, SIDE, b'')),
    checked('an image of 900 million pixels', 'it has 30000 x 30000 pixels: too many to decode',
            size(30_000, 30_000), image=write(lambda: blank(30_000, 30_000))),
    checked('an image of another size than is said', '20000 x 20000, but its annotations are',
            image=write(lambda: blank(20_000, 20_000))),
    checked('an image that is truncated', '1.png: ', image=png(64, 64, b'')),
    checked('text of 300 MB in an image', '1.png: .*too large',
            image=write(lambda: png(64, 64, zlib.compress(bytes(64 * 65)),
                                    chunk(b'zTXt', b'a\0\0' + bomb())))),
    checked('a page for an image', 'cannot identify image file', image=b'<svg onload="alert(1)">'),
]  # fmt: skip
