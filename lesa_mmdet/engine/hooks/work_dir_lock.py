"""A hook that keeps a second training out of a work directory."""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from ...upstream import HOOKS, Hook
from ..lock import lock, release
from .fit_checkpoint import trains


@HOOKS.register_module()
class WorkDirLockHook(Hook):
    """Refuse to train in a work directory in which another process trains.

    Both would write the same checkpoints. An evaluation may look on.
    """

    priority = 'VERY_HIGH'  # before anybody looks for checkpoints there

    def before_run(self, runner: Runner) -> None:
        """Take the work directory.

        Raises:
            ValueError: If another process has it.
        """
        if trains(runner) and is_main_process():
            lock(Path(runner.work_dir))

    def after_run(self, runner: Runner) -> None:
        """Give it back."""
        if trains(runner) and is_main_process():
            release(Path(runner.work_dir))
