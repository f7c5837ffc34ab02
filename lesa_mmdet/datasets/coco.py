"""COCO data sets that say what is wrong with an image or an annotation."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import cv2
import mmcv
import torch
from mmengine import fileio
from mmengine.logging import print_log

from ..upstream import DATASETS, CocoApi, CocoDataset, LoadAnnotations, LoadImageFromFile
from ..utils.errors import MENDABLE, UserValueError
from ..utils.paths import is_other_than_file, kind_of
from ..utils.text import shorten, shown
from .boxes import is_number, is_of_corners
from .ids import NO_NUMBER, NOT_MATCHED, TWO_KINDS, are_of_one_kind, to_number
from .masks import find_mask_bounds, find_mask_problem, has_three_points

CHECK_HINT = 'tools/check_dataset.py finds all that is wrong with a data set'
SAMPLE = 200  # objects whose boxes are looked at to tell their format


class NamedCategories(CocoApi):
    """pycocotools' reader of annotations, which finds the categories of all names or refuses."""

    def get_cat_ids(self, cat_names: Sequence[str] = (), **kwargs: Any) -> list[int]:
        """Ids of the categories of some names, in the order of the file.

        Raises:
            ValueError: If a name is unknown, stands for two categories, or another order is asked
                for: labels, which are numbers, would mean other classes.
        """
        ids = super().get_cat_ids(cat_names=list(cat_names), **kwargs)
        found = [self.cats[category_id]['name'] for category_id in ids]
        if cat_names and found != list(cat_names):
            known = [category['name'] for category in self.cats.values()]
            raise UserValueError(
                f'it has {len(known)} categories ({shorten(known)}), but metainfo.classes asks '
                f'for {len(cat_names)} ({shorten(cat_names)}): name the same, in the order of the '
                'file, in the metainfo.classes of each data set'
            )
        return ids


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset``, with clear words for what it stumbles over.

    * Annotation files of which nothing, or something else than what is asked for, could be learnt
      are refused: categories that are not the classes, no object that counts, no masks.
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

    COCOAPI = NamedCategories

    def __init__(self, *args: Any, skip_unreadable: bool = False, **kwargs: Any) -> None:
        self.skip_unreadable = skip_unreadable
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Load the annotations."""
        super().full_init()
        self._skipped = torch.zeros(len(self), dtype=torch.bool)
        if self.skip_unreadable and not self.test_mode:
            with suppress(RuntimeError):  # without /dev/shm every worker counts for itself
                self._skipped.share_memory_()

    def load_data_list(self) -> list[dict]:
        """Load the annotations; objects without a usable mask get an empty one.

        Returns:
            list[dict]: One dict an image, as of ``CocoDataset``.

        Raises:
            ValueError: If the file is no annotation file of COCO, its categories are not the
                classes, or it has no images, or not what the pipeline loads.
        """
        classes = self.metainfo['classes']
        if not isinstance(classes, (list, tuple)):
            raise UserValueError(
                f'{self.ann_file}: metainfo.classes is {classes!r}, but has to be a tuple of '
                f'names: ({classes!r},) with a comma for a single class'
            )
        self._of_corners, self._not_matched, self._ids = [], [], set()
        try:
            images = super().load_data_list()
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever mmdet and pycocotools stumble over
            raise UserValueError(f'{self.ann_file}: {_explain(error)}. {CHECK_HINT}') from error
        self._ids.clear()
        if not images:
            raise UserValueError(f'{self.ann_file} has no images. {CHECK_HINT}')
        if 2 * sum(self._of_corners) > len(self._of_corners):
            raise UserValueError(
                f'{self.ann_file}: boxes are [left, top, right, bottom] by their masks or areas, '
                f'but have to be [x, y, width, height]. {CHECK_HINT}'
            )
        if self.test_mode:
            self._check_ids(images)
        self._leave_out_maskless(images)
        return images

    def _check_ids(self, images: list[dict]) -> None:
        """Refuse ids with which evaluation would stop, and say which objects it would not find."""
        for what, ids in (
            ('images', [image['img_id'] for image in images]),
            ('classes', self.cat_ids),
        ):
            if not are_of_one_kind(ids):
                raise UserValueError(
                    f'{self.ann_file}: {what} have ids of several kinds. {TWO_KINDS}'
                )
        if self._not_matched:
            print_log(
                f'{self.ann_file}: {shorten(self._not_matched)}. {NOT_MATCHED}',
                logger='current',
                level=logging.WARNING,
            )

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Read an image's entry and those of its objects.

        Args:
            raw_data_info (dict): ``raw_img_info`` and ``raw_ann_info``, as in the file.

        Returns:
            dict: As of ``CocoDataset``.

        Raises:
            ValueError: If an entry lacks what a training or an evaluation asks for.
        """
        image, objects = raw_data_info['raw_img_info'], raw_data_info['raw_ann_info']
        for entry in objects:
            for key in ('bbox', 'area', 'category_id', *(['iscrowd'] if self.test_mode else ())):
                if entry.get(key) is None:
                    raise UserValueError(
                        f'annotation {shown(entry["id"])} of image {shown(image["id"])} '
                        f'has no {key}'
                    )
            where = f'annotation {shown([entry["id"]])[1:-1]} of image {shown([image["id"]])[1:-1]}'
            if entry['id'] in self._ids and self.ANN_ID_UNIQUE:  # which mmdet asserts
                raise UserValueError(f'{where} has an id that another one has')
            self._ids.add(entry['id'])
            number = to_number(entry['id'])
            if self.test_mode and number is None:
                raise UserValueError(f'{where} has an id that is no number. {NO_NUMBER}')
            if number == 0:
                self._not_matched.append(f'{where} has the id 0')
            box = entry['bbox']
            if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
                raise UserValueError(
                    f'annotation {shown(entry["id"])} of image {shown(image["id"])} has the bbox '
                    f'{shown(box)}, but it '
                    'has to be [x, y, width, height]'
                )
            if len(self._of_corners) < SAMPLE:
                self._of_corners.append(_is_of_corners(entry, image))
        return super().parse_data_info(raw_data_info)

    def filter_data(self) -> list[dict]:
        """Leave out images without objects, as ``CocoDataset`` does.

        Returns:
            list[dict]: The others.

        Raises:
            ValueError: If there is nothing to learn, or no truth to compare with.
        """
        images = super().filter_data()
        steps = self.pipeline.transforms
        loaded = next((step for step in steps if isinstance(step, LoadAnnotations)), None)
        if loaded is None and self.test_mode:
            return images  # images alone, as of test-dev
        learnt = [i for image in images for i in image['instances'] if not i['ignore_flag']]
        if not learnt:
            raise UserValueError(f'{self.ann_file}: {self._describe_objects()}. {CHECK_HINT}')
        if getattr(loaded, 'with_mask', False) and not any(
            instance.get('mask') for instance in learnt
        ):
            raise UserValueError(
                f'{self.ann_file}: no object has a mask (segmentation), but the pipeline loads '
                'masks: take a detector of boxes (configs/faster_rcnn), or set with_mask=False in '
                'LoadAnnotations and leave out mask heads and the metric segm'
            )
        return images

    def _leave_out_maskless(self, images: list[dict]) -> None:
        if not any(instance.get('mask') for image in images for instance in image['instances']):
            return  # a data set of boxes
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

    def _describe_objects(self) -> str:
        """Why no object of the file is of use."""
        content = fileio.load(self.ann_file, backend_args=self.backend_args)
        objects = content.get('annotations') or []
        if not objects:
            return 'it has images, but no object (annotations)'
        named = {category['id']: category['name'] for category in content['categories']}
        image_ids = {image['id'] for image in content['images']}
        reasons = {
            f'have a category_id that is none of {shorten(sorted(named, key=str))}': [
                entry for entry in objects if entry['category_id'] not in named
            ],
            f'have an image_id that no image has, such as {objects[0]["image_id"]!r} (the images '
            f'have ids such as {next(iter(image_ids))!r})': [
                entry for entry in objects if entry['image_id'] not in image_ids
            ],
            'are crowds (iscrowd)': [entry for entry in objects if entry.get('iscrowd')],
        }
        found = [f'{len(of_kind):,} {reason}' for reason, of_kind in reasons.items() if of_kind]
        found = found or ['all have boxes or areas that are empty, or no mask']
        return f'none of its {len(objects):,} objects can be used: {"; ".join(found)}'

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline on an image.

        Args:
            idx (int): Index of the image.

        Returns:
            dict, optional: What the pipeline makes of it, or None: another one is to be taken.

        Raises:
            ValueError: If the image cannot be read, or the pipeline refuses what a user can mend.
            RuntimeError: If the pipeline fails on it for another reason.
        """
        path = self.get_data_info(idx)['img_path']
        try:
            if is_other_than_file(path):  # which would be waited for
                raise UserValueError('not opened')
            return super().prepare_data(idx)
        except Exception as error:
            reason = self._find_read_error(path)
            if reason is None:
                kind = UserValueError if isinstance(error, MENDABLE) else RuntimeError
                raise kind(f'{shown(path, 300)}: {type(error).__name__}: {error}') from error
            if self.test_mode or not self.skip_unreadable:
                raise UserValueError(
                    f'{shown(path, 300)} cannot be read: {reason}. Replace it '
                    '(tools/check_dataset.py finds all of them), or train without: '
                    'train_dataloader.dataset.skip_unreadable=True'
                ) from error
            self._log_skipped(idx, path, reason)
            return None

    def _find_read_error(self, path: str) -> str | None:
        if is_other_than_file(path):
            return f'it is {kind_of(path)}'
        try:
            image = mmcv.imfrombytes(self._read_bytes(path))
        except OSError as error:
            return shown(error.strerror or error)
        except cv2.error:  # an empty file
            image = None
        return 'it is no image, or its data is damaged' if image is None else None

    def _read_bytes(self, path: str) -> bytes:
        """What the pipeline reads of an image, of another backend than annotations maybe."""
        steps = (step for step in self.pipeline.transforms if isinstance(step, LoadImageFromFile))
        step = next(steps, self)
        if old := getattr(step, 'file_client_args', None):
            return fileio.FileClient.infer_client(old, path).get(path)
        return fileio.get(path, backend_args=step.backend_args)

    def _log_skipped(self, idx: int, path: str, reason: str) -> None:
        if self._skipped[idx]:
            return
        self._skipped[idx] = True
        print_log(
            f'unreadable image {shown(path, 300)} replaced by another one ({reason}); '
            f'{int(self._skipped.sum())} of {len(self)} images so far',
            logger='current',
            level=logging.ERROR,  # the level at which every process of a distributed training logs
        )


def _is_of_corners(entry: dict, image: dict) -> bool:
    size, mask = (image['height'], image['width']), entry.get('segmentation')
    bounds = None if find_mask_problem(mask, *size) else find_mask_bounds(mask, *size)
    return is_of_corners(entry['bbox'], entry['area'], bounds)


def _has_mask(instance: dict) -> bool:
    mask = instance.get('mask')
    return bool(mask) and (isinstance(mask, dict) or any(map(has_three_points, mask)))


def _explain(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f'the file, or an entry in it, has no {shown(error.args[0])!r}'
    return shown(error, 1000) or f'no annotation file of COCO ({type(error).__name__})'
