"""Where the repository and the goldens are."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN_DIR = Path(os.environ.get('LESA_GOLDEN_DIR', ROOT.parent / 'shared' / 'golden'))
COCO_ROOT = Path(os.environ.get('LESA_COCO_ROOT', ROOT.parent / 'shared' / 'data' / 'coco_mini'))
