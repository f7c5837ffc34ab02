"""Going on with a training: from where, and whether it is still the same one."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints.files import read_checkpoint
from ..utils.errors import UserValueError
from ..utils.paths import TRAIN_HINT, check_exists

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


def find_newest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder from which a training can go on.

    Says which one it is, and which newer ones cannot be read.

    Args:
        folder (Path): Where a training has saved.

    Returns:
        Path, optional: Its path; None if there is no checkpoint at all.

    Raises:
        ValueError: If there are some, but none of them can be read.
    """
    problems = []
    for path in list_saved(folder):
        try:
            checkpoint = read_checkpoint(path, map_location='cpu')
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
            f'no checkpoint in {folder} can be resumed from: {"; ".join(problems)}; name another '
            'with --resume PATH, or remove them to start over'
        )
    return None


def list_saved(folder: Path) -> list[Path]:
    """The checkpoints that a training has saved in a folder, the newest first."""
    found = [path for pattern in ('epoch_*.pth', 'iter_*.pth') for path in folder.glob(pattern)]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


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
    except ValueError:
        before = {}
    if not before:
        return
    changes = list(_differences(before, cfg.to_dict()))
    for path, old, new in changes:
        if path == 'optim_wrapper.optimizer.type':
            raise UserValueError(
                f'the checkpoint was trained with the optimizer {old}, whose state {new} cannot '
                f'take: set {path} to {old}, or begin a new training from it with load_from'
            )
    told = [
        f'{path} {_short(old)} -> {_short(new)} ({consequence})'
        for path, old, new in changes
        if (consequence := _consequence(path))
    ]
    if told:
        print_log(
            'The config is not that of the checkpoint: ' + '; '.join(told),
            logger='current',
        )


def parse_config(text: str) -> dict[str, Any]:
    """Read the text of a config, as mmengine writes it, without running it.

    Raises:
        ValueError: If it is anything but names with plain values.
    """
    try:
        statements = ast.parse(text).body
        return {statement.targets[0].id: _value(statement.value) for statement in statements}
    except (AttributeError, SyntaxError, TypeError, RecursionError) as error:
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
