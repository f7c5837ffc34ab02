"""Going on with a training: from where, and whether it is still the same one."""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import join_path
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, Runner

from ..upstream import CheckpointHook
from ..utils.errors import UserFileNotFoundError, UserValueError
from ..utils.paths import TRAIN_HINT, check_exists
from ..utils.text import shown

# What becomes of a part of the config that has changed, by its beginning. Of the rest, such as
# paths, logging and evaluation, nothing needs to be said.
_KEPT = "the checkpoint's stays"
_NEW = "the config's from now on"
_CONSEQUENCES = {
    'optim_wrapper.optimizer': _KEPT,
    'optim_wrapper': _NEW,
    'param_scheduler': _KEPT,
    'auto_scale_lr': _KEPT,
    'train_cfg': _NEW,
    'train_dataloader': _NEW,
    'model': _NEW,
}
_TEMPLATE = 'epoch_{}.pth'
_NOTE = 'last_checkpoint'  # where mmengine's CheckpointHook notes the path of what it has saved
_LONGEST = 4096  # bytes of a path
_LONGEST_CONFIG = 1 << 20  # characters; the longest of mmdet's have 60,000
_MAX_TOLD = 30  # differences of configs
_NEEDED = ('meta', 'message_hub', 'optimizer')  # to go on, not only to evaluate


def check_start(resume: str | None, cfg: Mapping[str, Any]) -> None:
    """Look for the checkpoint that a training begins with, before anything is built.

    Args:
        resume (str, optional): mmdet's ``--resume``: a path, 'auto' for the newest, or None.
        cfg (Mapping[str, Any]): The config.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder.
    """
    if resume not in (None, 'auto'):
        check_exists(resume, '--resume', 'without a path it takes the newest of the work directory')
    elif resume is None and cfg.get('load_from'):
        check_exists(cfg['load_from'], 'load_from', TRAIN_HINT)


def find_newest(
    work_dir: str | Path, folder: str | None = None, template: str = _TEMPLATE
) -> str | None:
    """The newest checkpoint of a training from which it can go on.

    Says which one it is, and which newer ones cannot be read.

    Args:
        work_dir (str | Path): The work directory.
        folder (str, optional): As of :func:`list_saved`.
        template (str): As of :func:`list_saved`.

    Returns:
        str, optional: Its path; None if there is no checkpoint at all.

    Raises:
        FileNotFoundError: If mmengine's note of the last checkpoint names one that is not there.
        ValueError: If there are some, but none of them can be read.
    """
    problems = []
    for path in list_saved(work_dir, folder, template):
        try:
            checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
            lacking = [key for key in _NEEDED if key not in checkpoint]
            if lacking:
                raise UserValueError(
                    f'{path} has no {", ".join(lacking)}: it was saved to be evaluated'
                )
        except (OSError, TypeError, ValueError) as error:
            problems.append(str(error))
            print_log(f'Not resumed from: {error}', logger='current')
            continue
        print_log(f'Resume from {path}, the newest checkpoint that can be read.', logger='current')
        return path
    if problems:
        raise UserValueError(
            f'no checkpoint of {work_dir} can be resumed from: {"; ".join(problems)}; name another '
            'with --resume PATH, or remove them to start over'
        )
    return None


def list_saved(
    work_dir: str | Path, folder: str | None = None, template: str = _TEMPLATE
) -> list[str]:
    """The checkpoints that a training has saved, the newest first.

    That is the one that mmengine has noted in ``last_checkpoint``, whatever its name. The others
    go by the numbers in their names, not by their times, which copying changes. One with a higher
    number than the noted one is newer only if it was written after the note, when the training was
    killed before it could note it: else an earlier training has left it.

    Args:
        work_dir (str | Path): The work directory.
        folder (str, optional): Where the training saves; by default the work directory.
        template (str): How it names checkpoints, as of mmengine's ``CheckpointHook``; mmengine's
            own names are looked for, too.

    Returns:
        list[str]: Paths, and addresses of a remote folder.

    Raises:
        FileNotFoundError: If the note names a checkpoint that is not there.
        ValueError: If the note cannot be followed.
    """
    folder = str(folder or work_dir)
    found = [
        (name, number, path)
        for name in dict.fromkeys((template, 'epoch_{}.pth', 'iter_{}.pth'))
        for place in dict.fromkeys((folder, str(work_dir)))
        for number, path in _numbered(place, name)
    ]
    note = Path(work_dir, _NOTE)
    last = _read_note(note, folder, os.path.dirname(template))
    paths = list(dict.fromkeys(path for _, _, path in found))
    if last is None:
        return paths
    reached = {name: number for name, number, path in found if path == last}
    higher = [path for name, number, path in found if number > reached.get(name, number)]
    written = note.stat().st_mtime_ns
    newer = [path for path in higher if os.stat(path).st_mtime_ns >= written]
    return [*newer, last, *(path for path in paths if path not in (*higher, last))]


def place_of(runner: Runner) -> tuple[str, str]:
    """The folder to which a runner saves checkpoints, and how it names them."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if hook is None:
        return runner.work_dir, _TEMPLATE
    return _folder(hook.out_dir, runner.work_dir), hook.filename_tmpl


def saved_by(cfg: Mapping[str, Any], work_dir: str | Path) -> tuple[str, str]:
    """The same of a config's training in a work directory, without building it."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    return _folder(hook.get('out_dir'), str(work_dir)), hook.get('filename_tmpl') or _TEMPLATE


def _folder(out_dir: str | None, work_dir: str) -> str:
    """Where a hook saves; it finds out itself, but later."""
    if out_dir in (None, work_dir):
        return work_dir
    return join_path(out_dir, os.path.basename(work_dir.rstrip(os.sep)))


def _numbered(folder: str, template: str) -> list[tuple[int, str]]:
    """Numbers and paths of the files that have a template's names, the highest number first.

    One that names all alike, so that each replaces the one before, has the number 0.
    """
    found = []
    below, name = os.path.split(template)
    folder = os.path.join(folder, below)
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        for number in {0, *map(int, re.findall('[0-9]+', entry.name))}:
            if name.format(number) == entry.name and os.path.isfile(entry.path):
                found.append((number, os.path.realpath(entry.path)))
    return sorted(found, reverse=True)


def _read_note(note: Path, folder: str, below: str) -> str | None:
    """The checkpoint that mmengine has noted as the last one; None without a note.

    A note may have been written by anybody: only what lies in the work directory or the folder to
    which the training saves is taken, or in the folder below that the template names, no link, and
    nothing but a regular file on a disk.

    Raises:
        FileNotFoundError: If the checkpoint is not there.
        ValueError: If it is none, or the note is none.
    """
    if not note.is_file():
        if note.exists():
            raise UserValueError(f'{note} is no file, but has to be the note of a training')
        return None
    with note.open('rb') as file:
        last = os.fsdecode(file.read(_LONGEST)).strip()
    if not last:  # the training was killed while it wrote it
        return None
    what = f'{note} names {shown(last)} as the last checkpoint'
    instead = (
        f'name another with --resume PATH, or remove {note} to go on from the newest that is there'
    )
    if '://' in last:
        if '://' in folder and last.startswith(folder):
            return last
        raise UserValueError(f'{what}, which is not in {folder}, where it is saved: {instead}')
    if os.path.isfile(last):
        places = {os.path.realpath(os.path.join(place, below)) for place in (folder, note.parent)}
        path = os.path.realpath(last)
        if os.path.dirname(path) not in places or not last.isprintable():
            raise UserValueError(f'{what}, which is not in {folder}: {instead}')
        return path
    if os.path.exists(last):
        raise UserValueError(f'{what}, which is no file: {instead}')
    raise UserFileNotFoundError(f'{what}, which does not exist: {instead}')


def require_same_training(checkpoint: Mapping[str, Any], cfg: Config) -> None:
    """Compare the config that a checkpoint was trained with to the one at hand.

    Says what differs and what becomes of it.

    Args:
        checkpoint (Mapping[str, Any]): A checkpoint of mmengine, with the config's text.
        cfg (Config): The config at hand.

    Raises:
        ValueError: If the optimizer is another one, or the classes are.
    """
    meta = checkpoint.get('meta') or {}
    try:
        before = parse_config(meta.get('cfg') or '')
    except ValueError as error:
        before = {}
        print_log(
            f'The config of the checkpoint cannot be compared with this one: {shown(error, 200)}.',
            logger='current',
        )
    if not before:
        return
    changes = [
        (path, old, new)
        for path, old, new in _differences(before, cfg.to_dict())
        # A class may be named by itself or, in a config in pure Python, with where it is.
        if not (path.endswith('.type') and str(old).split('.')[-1] == str(new).split('.')[-1])
    ]
    for path, old, new in changes:
        if path == 'optim_wrapper.optimizer.type':
            raise UserValueError(
                f'the checkpoint was trained with the optimizer {shown(old)}, whose state {new} '
                f'cannot take: set {path} to {shown(old)}, or begin a new training from it with '
                'load_from'
            )
    told = [
        f'{shown(path)} {shown(old, 60)} -> {shown(new, 60)} ({consequence})'
        for path, old, new in changes
        if (consequence := _consequence(path))
    ]
    if told:
        print_log(
            'The config is not that of the checkpoint: '
            + '; '.join(told[:_MAX_TOLD])
            + f'; and {len(told) - _MAX_TOLD:,} more' * (len(told) > _MAX_TOLD),
            logger='current',
        )


def parse_config(text: str) -> dict[str, Any]:
    """Read the text of a config, as mmengine writes it, without running it.

    Raises:
        ValueError: If it is anything but names with plain values.
    """
    try:
        if len(text) > _LONGEST_CONFIG:
            raise UserValueError(f'not the text of a config: it has {len(text):,} characters')
        statements = ast.parse(text).body
        return {statement.targets[0].id: _value(statement.value) for statement in statements}
    except (
        AttributeError,
        LookupError,
        SyntaxError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UserValueError(f'not the text of a config: {error}') from error


def _value(node: ast.expr) -> Any:
    """The value of an expression of constants, lists, tuples, dicts and dict(...)."""
    if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'dict':
        values = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        for child in node.args:
            values.update(_value(child))
        return values
    if isinstance(node, ast.Dict):
        return {
            _value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(child) for child in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


def _plain(node: Any) -> Any:
    """A config as dicts, lists and constants; lists and tuples are the same."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node


def _differences(old: Any, new: Any, path: str = '') -> Iterator[tuple[str, Any, Any]]:
    """Paths whose values differ, with both values."""
    old, new = _plain(old), _plain(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            child = f'{path}.{key}' if path else str(key)
            yield from _differences(old.get(key), new.get(key), child)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, f'{path}.{index}')
    elif old != new:
        yield path, old, new


def _consequence(path: str) -> str | None:
    return next((said for part, said in _CONSEQUENCES.items() if path.startswith(part)), None)
