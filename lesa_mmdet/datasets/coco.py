"""COCO data sets that say what is wrong with an image or an annotation."""

import logging
from typing import Any, Optional

import cv2
import mmcv
import torch
from mmengine import fileio
from mmengine.logging import print_log

from ..upstream import DATASETS, CocoDataset
from .masks import has_three_points


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset``, with clear words for what it stumbles over.

    * What goes wrong with an image or its annotations names the image.
    * An image that cannot be read stops the training, or is replaced by another one, as mmdet does
      for images that its pipeline gives up; each such image is logged once, with their number.
    * An object without a polygon of three points, among others that have masks, is left out like a
      crowd. (mmdet does so for polygons that are too short, and fails for none.) Their number is
      logged.

    Args:
        skip_unreadable (bool): Replace unreadable images in training. Evaluation never does.
            Every process of a distributed training counts for itself.
        *args: As of ``CocoDataset``.
        **kwargs: As of ``CocoDataset``.
    """

    def __init__(self, *args: Any, skip_unreadable: bool = False, **kwargs: Any) -> None:
        self.skip_unreadable = skip_unreadable
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Load the annotations."""
        super().full_init()
        # Shared with the workers of the data loader.
        self._skipped = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def load_data_list(self) -> list[dict]:
        """Load the annotations; objects without a usable mask get an empty one.

        Returns:
            list[dict]: One dict an image, as of ``CocoDataset``.
        """
        images = super().load_data_list()
        if not any(instance.get('mask') for image in images for instance in image['instances']):
            return images  # a data set of boxes
        without = []
        for image in images:
            for instance in image['instances']:
                if not _has_mask(instance):
                    instance['mask'] = []
                    without.append(image['img_path'])
        if without:
            print_log(
                f'{self.ann_file}: {len(without)} objects have no polygon of three points and are '
                f'left out (first in {without[0]}); tools/check_dataset.py lists them',
                logger='current',
                level=logging.WARNING,
            )
        return images

    def prepare_data(self, idx: int) -> Optional[dict]:
        """Run the pipeline on an image.

        Args:
            idx (int): Index of the image.

        Returns:
            dict, optional: What the pipeline makes of it, or None: another one is to be taken.

        Raises:
            ValueError: If the image cannot be read.
            RuntimeError: If the pipeline fails on it for another reason.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            reason = self._find_read_error(path)
            if reason is None:
                raise RuntimeError(f'{path}: {type(error).__name__}: {error}') from error
            if self.test_mode or not self.skip_unreadable:
                raise ValueError(
                    f'{path} cannot be read: {reason}. Replace it (tools/check_dataset.py finds '
                    'all of them), or train without: train_dataloader.dataset.skip_unreadable=True'
                ) from error
            self._log_skipped(idx, path, reason)
            return None

    def _find_read_error(self, path: str) -> Optional[str]:
        try:
            image = mmcv.imfrombytes(fileio.get(path, backend_args=self.backend_args))
        except OSError as error:
            return error.strerror or str(error)
        except cv2.error:  # an empty file
            image = None
        return 'it is no image, or its data is damaged' if image is None else None

    def _log_skipped(self, idx: int, path: str, reason: str) -> None:
        if self._skipped[idx]:
            return
        self._skipped[idx] = True
        print_log(
            f'unreadable image {path} replaced by another one ({reason}); '
            f'{int(self._skipped.sum())} of {len(self)} images so far',
            logger='current',
            level=logging.ERROR,  # the level at which every process of a distributed training logs
        )


def _has_mask(instance: dict) -> bool:
    mask = instance.get('mask')
    return bool(mask) and (isinstance(mask, dict) or any(map(has_three_points, mask)))
