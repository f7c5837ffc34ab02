"""Configs without what takes mmengine seconds a config, from when this is imported on."""

from functools import cache

from mmengine.config import config, utils
from yapf.yapflib import yapf_api


def unformatted(text, **options):
    """A config as it is written: laid out by yapf it says the same, a second later."""
    return text, False


for module in (yapf_api, config):  # where mmengine or onedl-mmengine take it from
    module.FormatCode = unformatted
utils.load = cache(utils.load)  # a hundred files of mmdet's index for every base that is mmdet's
