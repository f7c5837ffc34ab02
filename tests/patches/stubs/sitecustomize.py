"""Programs that start, import all of mmdet and end in three seconds instead of five.

Python imports this first. Its collector would go through a million objects again and again while
they are imported, and once more at the end.
"""

import atexit
import gc

gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)
