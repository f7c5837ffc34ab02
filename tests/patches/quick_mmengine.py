"""mmengine without what takes tests long, from when this is imported on."""

from functools import cache
from types import SimpleNamespace

from mmengine.config import utils
from mmengine.dataset import base_dataset

utils.load = cache(utils.load)  # mmdet's index of a hundred files, for every base that is mmdet's
base_dataset.gc = SimpleNamespace(collect=lambda: None)  # through all modules, for every data set
