"""Generated images as a data set of COCO, to be read and to be edited."""

import json
import shutil

from lesa_mmdet.datasets.shapes import generate


def generate_as_coco(folder, **sizes):
    """Generated images, their annotations under COCO's names; returns their root."""
    root = generate(folder, **sizes)
    for split in ('train', 'val'):
        file = root / 'annotations' / f'{split}.json'
        file.rename(file.with_name(f'instances_{split}.json'))
    return root


def editable_copy(source, folder):
    """A copy of such a data set, and a function that edits the annotations of a split."""
    root = shutil.copytree(source, folder)

    def edit(change, split='train'):
        file = root / 'annotations' / f'instances_{split}.json'
        content = json.loads(file.read_text(encoding='utf-8'))
        change(content)
        file.write_text(json.dumps(content), encoding='utf-8')

    return root, edit
