"""A hook that saves checkpoints so that there is always a complete one."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from string import Formatter
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import MessageHub, print_log
from mmengine.runner import Runner

from ...checkpoints.atomic import UNFINISHED
from ...upstream import HOOKS, CheckpointHook
from ...utils.paths import is_url
from ...utils.text import shown

_OUTDATED = 'outdated_checkpoints'
_KEPT = 'keep_ckpt_ids'
# What the message hub, and so a checkpoint, has to say of files.
_NOTED = re.compile(f'{_OUTDATED}$|{_KEPT}$|last_ckpt$|best_ckpt(_|$)')


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which loses nothing when the process is killed.

    Files are written under another name and renamed when they are complete. One that is not kept
    any longer (``max_keep_ckpts``, the last best one) is removed after its successor is written;
    mmengine removes it before.

    What a checkpoint that is resumed says about files is only believed if it lies in the folder
    that is saved to, and only of names that this hook gives its files there: no other file is ever
    removed.

    Args:
        backend_args (dict, optional): Of mmengine's file backend, for checkpoints that are not
            saved on a disk.
        **kwargs: Arguments of ``CheckpointHook``.
    """

    def __init__(self, *, backend_args: dict | None = None, **kwargs) -> None:
        on_disk = not is_url(kwargs.get('out_dir') or '')
        if backend_args is None and on_disk:
            backend_args = dict(backend='atomic')
        super().__init__(backend_args=backend_args, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Go on from what the checkpoint says, and clear away what a killed training has left."""
        hub = runner.message_hub
        noted = {key: hub.pop_info(key) for key in list(hub.runtime_info) if _NOTED.match(str(key))}
        super().before_train(runner)  # which would remove what it finds there
        self.file_backend = _RemoveLater(self.file_backend, hub, self._is_own)
        if _lies_in(self.out_dir, runner._load_from):
            self._take_over(noted, hub)
        elif noted:
            runner.logger.info(
                f'{shown(runner._load_from)} lies elsewhere than {self.out_dir}: the files that it '
                'names stay, whatever max_keep_ckpts and save_best say.'
            )
        if is_main_process():
            self._remove_outdated()
            for path in Path(self.out_dir).glob(f'*.pth{UNFINISHED}'):
                path.unlink()

    def _take_over(self, noted: dict[str, Any], hub: MessageHub) -> None:
        """Take over what a checkpoint of this folder says of the other files there."""
        steps = [n for n in _entries(noted.pop(_KEPT, ())) if type(n) is int and 0 <= n < 1 << 63]
        outdated = _entries(noted.pop(_OUTDATED, ()))
        if self.max_keep_ckpts > 0:
            outdated += map(self.filename_tmpl.format, steps[: -self.max_keep_ckpts])
            self.keep_ckpt_ids.extend(steps)  # the last ones stay in it
            hub.update_info(_KEPT, list(self.keep_ckpt_ids))
        if is_main_process():
            for name in outdated:
                self.file_backend.remove(os.path.join(self.out_dir, str(name)))
        best = getattr(self, 'best_ckpt_path_dict', {})  # with several metrics in save_best
        for key, path in noted.items():
            if not self._is_own(path):
                print_log(f'Not touched: {key} of the checkpoint, {shown(path)}.', 'current')
                continue
            hub.update_info(key, path)
            if key == 'best_ckpt':
                self.best_ckpt_path = path
            elif (metric := key.removeprefix('best_ckpt_')) in best:
                best[metric] = path

    def _is_own(self, path: Any) -> bool:
        """Whether a path is one that this hook gives its files in this folder."""
        step = ''.join(
            re.escape(text) + (r'\d+' if field is not None else '')
            for text, field, *_ in Formatter().parse(self.filename_tmpl)
        )
        folder = re.escape(str(self.out_dir).rstrip(os.sep) + os.sep)
        return (
            isinstance(path, str)
            and re.fullmatch(rf'{folder}(best_[^/\\]+_)?{step}', path) is not None
            and not (os.path.islink(path) or os.path.isdir(path))
        )

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


def _entries(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else []


def _lies_in(folder: str, path: str | None) -> bool:
    """Whether a file lies in a folder, on a disk or elsewhere."""
    parent = os.path.dirname(str(path))
    return path is not None and (
        parent == str(folder).rstrip(os.sep)
        if is_url(parent)
        else os.path.realpath(parent) == os.path.realpath(folder)
    )


class _RemoveLater:
    """A file backend that removes files when it is told to, not before.

    Their names are in the message hub, and so in the next checkpoint: a run that resumes from that
    removes them.
    """

    def __init__(
        self, backend: Any, message_hub: MessageHub, may_remove: Callable[[str], bool]
    ) -> None:
        self._backend, self._message_hub, self._may_remove = backend, message_hub, may_remove
        self._paths = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Remember a file that is to be removed, if it is one of the hook's own."""
        if self._may_remove(path):
            self._paths.append(path)
            self._note()
        else:
            print_log(
                f'Not removed: {shown(path)}, which is no checkpoint of this folder.', 'current'
            )

    def rmtree(self, path: str) -> None:
        """Leave a folder alone: this hook saves files."""
        print_log(f'Not removed: {shown(path)}, which is a folder.', 'current')

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
