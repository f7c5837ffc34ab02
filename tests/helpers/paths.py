"""Where the repository and the goldens are."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN_DIR = Path(os.environ.get('LESA_GOLDEN_DIR', ROOT.parent / 'shared' / 'golden'))
COCO_ROOT = Path(os.environ.get('LESA_COCO_ROOT', ROOT.parent / 'shared' / 'data' / 'coco_mini'))
DEMO = ROOT / 'configs' / 'demo' / 'mask-rcnn_lesa-r50-narrow_fpn_1xb4-10e_shapes-160.py'
