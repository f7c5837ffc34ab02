"""mmengine without what takes tests long, from when this is imported on."""

from functools import cache
from types import SimpleNamespace

from mmengine.config import config, utils
from mmengine.dataset import base_dataset

# For every base that is mmdet's: its index of a hundred files, and a search of all packages.
utils.load = cache(utils.load)
config.is_installed = cache(config.is_installed)
base_dataset.gc = SimpleNamespace(collect=lambda: None)  # through all modules, for every data set
