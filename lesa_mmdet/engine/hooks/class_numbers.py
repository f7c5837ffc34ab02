"""A hook that stops a run whose heads and data sets have different numbers of classes."""

from typing import Any

from mmcv.cnn import VGG
from mmdet.models.roi_heads.mask_heads import FusedSemanticHead
from mmengine.runner import Runner
from torch import nn

from ...checkpoints.fit import unwrap
from ...upstream import HOOKS, Hook
from ...utils.errors import UserValueError
from ..preflight import NOT_OF_CLASSES, OTHER_LABELS


@HOOKS.register_module()
class ClassNumbersHook(Hook):
    """mmdet's ``NumClassCheckHook`` in one sentence, and without ``assert``.

    ``python -O`` removes asserts: labels would mean other classes without a word. What mmdet's
    refuses and is right passes: heads that know the things of a panoptic data set alone, masks of
    one kind for all classes, and trackers and models of texts, which see to labels themselves.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Look at the data that the model is trained on.

        Raises:
            ValueError: If it has another number of classes than a head.
        """
        _compare(unwrap(runner.model), runner.train_dataloader.dataset)

    def before_val_epoch(self, runner: Runner) -> None:
        """Look at the data that the model is validated on; errors are the same."""
        _compare(unwrap(runner.model), runner.val_dataloader.dataset)


def _compare(model: nn.Module, dataset: Any) -> None:
    classes, things = (dataset.metainfo.get(key) for key in ('classes', 'thing_classes'))
    if classes is None or any(hasattr(m, part) for m in model.modules() for part in OTHER_LABELS):
        return
    if isinstance(classes, str):
        raise UserValueError(
            f'metainfo.classes is the text {classes!r}, but has to be a tuple of names: '
            f'({classes!r},) with a comma for a single class'
        )
    right = {len(names) for names in (classes, things) if names}
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', len(classes))
        is_free = (
            not {*NOT_OF_CLASSES}.isdisjoint(name.split('.'))
            or isinstance(module, (VGG, FusedSemanticHead))
            or getattr(module, 'class_agnostic', False)
        )
        if number not in right and not is_free:
            raise UserValueError(
                f'{name} has {number} classes, but the data set {len(classes)}: set num_classes '
                'of the head, or metainfo.classes of the data set'
            )
