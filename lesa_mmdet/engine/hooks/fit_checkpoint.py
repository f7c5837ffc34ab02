"""A hook that lets a run begin with the checkpoint it names, and with all of it."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from mmengine.runner import BaseLoop, FlexibleRunner, Runner

from ...checkpoints.fit import require_finite, strict_loading
from ...checkpoints.structure import require_resumable
from ...upstream import HOOKS, Hook
from ...utils.errors import UserValueError
from ...utils.text import shown
from ..resume import find_newest, place_of, require_same_training

_PROCESSES = 'num_processes'  # in a checkpoint's meta


@HOOKS.register_module()
class FitCheckpointHook(Hook):
    """Refuse a checkpoint that does not fit the model, the classes or the training.

    mmengine loads what fits, and leaves the rest as it was initialized: a detector without its
    head is evaluated with a random one. With this hook a checkpoint fits

    * an evaluation, if every key and shape is the model's, and the names of the classes are those
      of the data set;
    * ``load_from``, if it would fit an evaluation but for its classes: heads of another number of
      classes start fresh;
    * ``--resume``, if shapes, classes and optimizer are the same. What else of the config has
      changed is said, with what becomes of it. Without a path, ``--resume`` takes the newest
      checkpoint that can be read.

    Weights that are not finite are neither loaded nor saved.

    Args:
        partial (bool): Whether ``load_from`` takes what fits and says what does not, as mmengine
            does.
    """

    def __init__(self, partial: bool = False) -> None:
        self.partial = partial
        self._loading = ExitStack()

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from."""
        is_chosen = runner._resume is not True or runner._load_from or runner._has_loaded
        if is_chosen or not trains(runner):
            return
        runner._load_from = find_newest(runner.work_dir, *place_of(runner))
        if runner._load_from is None:
            runner._resume = False
            runner.logger.info(f'No checkpoint in {runner.work_dir}: the training starts anew.')
        elif isinstance(runner, FlexibleRunner):
            runner.load_or_resume()  # again: it has looked before, at mmengine's note alone

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the run."""
        resume = trains(runner) and runner._resume
        fine_tune = trains(runner) and not resume
        loading = strict_loading(
            runner.model,
            checkpoint,
            fine_tune=fine_tune,
            partial=fine_tune and self.partial,
            exact=resume,
        )
        with ExitStack() as stack:  # left at once if anything is refused here
            stack.enter_context(loading)
            loader = runner.train_dataloader if trains(runner) else _evaluated(runner)
            if not fine_tune and loader is not None:
                _require_same_classes(checkpoint, getattr(loader.dataset, 'metainfo', {}))
            if resume:
                require_same_training(checkpoint, runner.cfg)
                require_resumable(checkpoint, runner)
                _tell_processes(checkpoint, runner)
            self._loading = stack.pop_all()

    def before_train(self, runner: Runner) -> None:
        """Expect nothing of what is loaded from now on."""
        self._loading.close()

    before_val = before_test = before_train

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the last good checkpoint, instead of replacing it by a broken one."""
        require_finite(checkpoint['state_dict'])
        checkpoint['meta'][_PROCESSES] = runner.world_size


def _tell_processes(checkpoint: Mapping[str, Any], runner: Runner) -> None:
    """Say what another number of processes changes."""
    before, now = checkpoint['meta'].get(_PROCESSES), runner.world_size
    if type(before) is int and before != now:
        size = getattr(runner.train_dataloader.batch_sampler, 'batch_size', 1)
        runner.logger.warning(
            f'The checkpoint is of {shown(before)} processes, this training has {now}: a step has '
            f'{now * size} images instead of {shown(before * size)}, at the same learning rate, '
            'and the training does not go on exactly.'
        )


def trains(runner: Runner) -> bool:
    """Whether a run trains, and does not only evaluate."""
    return isinstance(runner._train_loop, BaseLoop)


def _evaluated(runner: Runner) -> Any:
    """The data loader of an evaluation."""
    loops = (loop for loop in (runner._test_loop, runner._val_loop) if isinstance(loop, BaseLoop))
    return next((loop.dataloader for loop in loops), None)


def _require_same_classes(checkpoint: Mapping[str, Any], metainfo: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose heads have learnt other classes than those of a data set.

    Raises:
        ValueError: If the names differ.
    """
    meta = checkpoint.get('meta') or {}
    learnt = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES') or ()
    named = metainfo.get('classes') or ()
    learnt, named = (
        [names] if isinstance(names, str) else list(names) for names in (learnt, named)
    )
    if learnt and named and learnt != named:
        pairs = enumerate(zip(learnt, named, strict=False))
        first = next(((i, *pair) for i, pair in pairs if len({*pair}) > 1), None)
        where = ''
        if first is not None:
            index, *names = first
            one, other = (shown([name])[1:-1] for name in names)
            where = f': class {index} is {one}, not {other}'
        raise UserValueError(
            f'the checkpoint has learnt {len(learnt)} classes, the data set has {len(named)}'
            f'{where}; name those of the checkpoint in metainfo.classes of the data set, or train '
            'for those of the data set with load_from'
        )
