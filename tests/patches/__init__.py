"""What makes tests fast. With LESA_PLAIN_TESTS=1 nothing of it happens.

* ``forked.py``: programs are forked from a process that has imported mmdet (``preload.py``),
  and so are the processes of launchers (``ranks.py``);
* ``stubs/``: configs are written as mmengine lays them out, and Python starts and ends sooner;
* ``quick_mmengine.py``, ``quick_triton.py``: what these do again and again is done once;
* ``cached.py``: results that depend on files alone are kept until one of the files changes.
"""

import os
import sys
from pathlib import Path

PLAIN = os.environ.get('LESA_PLAIN_TESTS') == '1'
STUBS = [] if PLAIN else [str(Path(__file__).parent / 'stubs')]
sys.path[:0] = STUBS
