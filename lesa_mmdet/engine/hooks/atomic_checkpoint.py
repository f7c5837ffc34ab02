"""A hook that saves checkpoints so that there is always a complete one."""

import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from ...checkpoints.atomic import UNFINISHED
from ...upstream import HOOKS, CheckpointHook

_OUTDATED = 'outdated_checkpoints'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which loses nothing when the process is killed.

    Files are written under another name and renamed when they are complete. One that is not kept
    any longer (``max_keep_ckpts``, the last best one) is removed after its successor is written;
    mmengine removes it before.

    Args:
        backend_args (dict, optional): Of mmengine's file backend, for checkpoints that are not
            saved on a disk.
        **kwargs: Arguments of ``CheckpointHook``.
    """

    def __init__(self, *, backend_args: dict | None = None, **kwargs) -> None:
        on_disk = '://' not in str(kwargs.get('out_dir') or '')
        if backend_args is None and on_disk:
            backend_args = dict(backend='atomic')
        super().__init__(backend_args=backend_args, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Clear away what a killed training has left."""
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend, runner.message_hub)
        if not is_main_process():
            return
        if _OUTDATED in runner.message_hub.runtime_info:
            for name in runner.message_hub.get_info(_OUTDATED):
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, name))
        self._remove_outdated()
        for path in Path(self.out_dir).glob(f'*.pth{UNFINISHED}'):
            path.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        if self.save_best:  # a validation without a training has nothing to remove
            self._remove_outdated()

    def _remove_outdated(self) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        self.file_backend.remove_now({self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best})


class _RemoveLater:
    """A file backend that removes files when it is told to, not before.

    Their names are in the message hub, and so in the next checkpoint: whoever resumes from that
    removes them.
    """

    def __init__(self, backend: Any, message_hub: Any) -> None:
        self._backend, self._message_hub = backend, message_hub
        self._paths = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Remember a file that is to be removed."""
        self._paths.append(path)
        self._note()

    def remove_now(self, written: set) -> None:
        """Remove the files that are remembered, except for those written anew."""
        for path in self._paths:
            if path not in written and self._backend.isfile(path):
                self._backend.remove(path)
        self._paths.clear()
        self._note()

    def _note(self) -> None:
        names = [os.path.basename(path) for path in self._paths]
        self._message_hub.update_info(_OUTDATED, names)
