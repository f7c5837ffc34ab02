"""Where the configs are, for projects that build on them, and reading them."""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from traceback import walk_tb
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.runner import FlexibleRunner, Runner

from . import plain_yaml  # noqa: F401  (how mmengine reads YAML from now on)
from .errors import UserFileNotFoundError, UserValueError
from .paths import require_regular
from .schema import ANY, TEXT, Each, require
from .text import shown

_PACKAGE = Path(__file__).parents[1]
# An installed package has the configs where mmdet has its own; a checkout, next to the package.
_INSTALLED = _PACKAGE / '.mim' / 'configs'
CONFIG_ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / 'configs'
INSTALL_MMPRETRAIN = "pip install 'mmpretrain>=1.2,<2' torchvision"
PRETRAIN_HINT = f'it needs mmpretrain, which is not installed: {INSTALL_MMPRETRAIN}'
# What mmdet, mmpretrain and mmengine read of a config; its other variables only help to write it.
_READ = {
    *signature(Runner.__init__).parameters,
    *signature(FlexibleRunner.__init__).parameters,
    'activation_checkpointing',
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'init_weights_for_test_or_val',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}
_VARIABLES = ('fileDirname', 'fileBasename', 'fileBasenameNoExtension', 'fileExtname')
_SUFFIXES = ('.py', '.json', '.yaml', '.yml')
_LIKE = 0.9  # how alike a name is to one that it is taken for, of 1


def config_path(name: str) -> str:
    """Path of a config of this package, for ``Config.fromfile`` or another config's ``_base_``.

    Args:
        name (str): Path below ``configs``, such as
            ``'mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'``; ``.py`` may be left out.

    Returns:
        str: Absolute path.

    Raises:
        FileNotFoundError: If there is no such config, with the names that come close.

    Example:
        >>> _base_ = __import__('lesa_mmdet').config_path('_base_/models/mask-rcnn_lesa-r50_fpn')
    """
    path = CONFIG_ROOT / f'{name.removesuffix(".py")}.py'
    if not path.is_file():
        known = [found.relative_to(CONFIG_ROOT).as_posix() for found in CONFIG_ROOT.rglob('*.py')]
        close = get_close_matches(name, known) or sorted(known)
        raise UserFileNotFoundError(
            f'{name} is no config in {CONFIG_ROOT}; close to it: {", ".join(close)}'
        )
    return str(path)


def name_of(kind: Any) -> str:
    """The name of a class as a config has it: text, with a path before it or not, or the class."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def load_config(path: str, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and change it, see :func:`read_config` and :func:`change_config`."""
    cfg = read_config(path)
    change_config(cfg, cfg_options or {})
    return cfg


def is_config(path: str | Path) -> bool:
    """Whether a file has the name of a config."""
    return Path(path).suffix in _SUFFIXES


def read_config(path: str) -> Config:
    """Read a config.

    Args:
        path (str): Config file.

    Raises:
        FileNotFoundError: If it does not exist, or a config in its ``_base_``.
        ValueError: If it needs mmpretrain, which is not installed, or it is no config.
    """
    if not is_config(path):
        raise UserValueError(f'{path} is no config: its name has to end with .py')
    path = os.path.expanduser(path)
    if not Path(path).exists():
        raise UserFileNotFoundError(
            f'config {shown(path, 300)} does not exist; docs/model_table.md lists all'
        )
    require_regular(path, 'config')
    try:
        _require_bases(Path(path).absolute(), (), set())
        return Config.fromfile(path)
    except FileNotFoundError as error:
        raise UserFileNotFoundError(
            f'{path}: a config in its _base_, or in that of one of them, does not exist: '
            f'{shown(error.filename or error, 300)}'
        ) from error
    except ImportError as error:
        if find_spec('mmpretrain') or 'mmpretrain' not in _messages(error):
            raise
        raise UserValueError(f'{path}: {PRETRAIN_HINT}') from error
    except (RecursionError, MemoryError) as error:  # Python's parser knows both
        raise UserValueError(f'{path} is no config: it is nested too deep') from error
    except Exception as error:
        if _is_of_the_program(error):
            raise
        kind = f'{type(error).__name__}: ' if isinstance(error, LookupError) else ''
        raise UserValueError(f'{path} is no config: {kind}{shown(error, 300)}') from error


def _require_bases(path: Path, above: tuple[Path, ...], done: set[Path]) -> None:
    """Refuse a config that is a base of itself, or uses a variable that mmengine does not have.

    mmengine would not see the end of the one, and take the other for text.
    """
    if path in above:
        raise UserValueError(f'its _base_ leads back to {path}')
    if path in done or not path.exists():
        return
    done.add(path)
    require_regular(path, 'its _base_')
    variables = re.findall(r'\{\{\s*(file\w*)\s*\}\}', path.read_text(encoding='utf-8'))
    unknown = next((name for name in variables if name not in _VARIABLES), None)
    if unknown:
        raise UserValueError(
            f'{path} has the variable {unknown}, which is none of {", ".join(_VARIABLES)}'
        )
    bases = _bases_of(path)
    bases = [bases] if isinstance(bases, str) else bases
    require(bases, [TEXT], 'its _base_')
    for base in bases:
        if '::' not in base:  # those of other packages
            found = Path(os.path.normpath(path.parent / base))
            _require_bases(found, (*above, path), done)


def _bases_of(path: Path) -> Any:
    """What a config says of its bases, unless it computes them."""
    if path.suffix != '.py':
        content = load(path)
        require(content, Each(ANY), 'its content')
        return content.get('_base_', ())
    for statement in ast.parse(path.read_text(encoding='utf-8')).body:
        if not isinstance(statement, ast.Assign):
            continue
        if any(getattr(target, 'id', None) == '_base_' for target in statement.targets):
            try:
                return ast.literal_eval(statement.value)
            except ValueError:
                break
    return ()


def _is_of_the_program(error: Exception) -> bool:
    """Whether a config, which is a program, raises it itself: its traceback says where."""
    if isinstance(error, (SyntaxError, NameError, UnicodeDecodeError)):
        return False
    # What mmengine runs has no name. What that calls may be of a package, which says it itself.
    names = [frame.f_globals.get('__name__', '') for frame, _ in walk_tb(error.__traceback__)]
    return '' in names and '.' not in names[-1]


def change_config(cfg: Config, options: Mapping[str, Any]) -> None:
    """Change a config in place.

    Args:
        cfg (Config): The config.
        options (Mapping[str, Any]): Changes, as of ``--cfg-options``.

    Raises:
        ValueError: If a change would change nothing.
    """
    for key in options:
        _check_option(cfg, key)
    cfg.merge_from_dict(dict(options))


def _check_option(cfg: Config, key: str) -> None:
    """Refuse a change of what nobody reads: a misspelt name, or a variable that helps to write."""
    names, whole = key.split('.'), cfg.to_dict()
    node = whole
    for name in names:
        if isinstance(node, Mapping) and name not in node and name not in _READ:
            close = get_close_matches(name, map(str, node), n=1, cutoff=_LIKE)
            if close or node is whole:
                known = f'is {close[0]} meant?' if close else f'it has {", ".join(sorted(whole))}'
                raise UserValueError(f'--cfg-options {key}: the config has no {name}; {known}')
        if isinstance(node, (list, tuple)):
            if not (name.isdigit() and int(name) < len(node)):
                raise UserValueError(
                    f'--cfg-options {key}: the config has {len(node)} there, from 0 on, no {name}'
                )
            node = node[int(name)]
        else:
            node = node.get(name) if isinstance(node, Mapping) else None
    name = names[0]
    if name not in _READ and not isinstance(whole[name], Mapping):
        paths = [path for part in _READ for path in _paths(whole.get(part), part)]
        paths = sorted(path for path in paths if path.endswith(f'.{name}'))
        instead = f'; set {", ".join(paths)} instead' if paths else ''
        raise UserValueError(
            f'--cfg-options {key} changes nothing: {name} is a variable that the file itself has '
            f'used up{instead}'
        )


def _paths(node: Any, path: str) -> Iterator[str]:
    """The paths of all values inside a part of a config."""
    children = node.items() if isinstance(node, Mapping) else ()
    if isinstance(node, (list, tuple)):
        children = enumerate(node)
    for key, child in children:
        yield f'{path}.{key}'
        yield from _paths(child, f'{path}.{key}')


def _messages(error: BaseException | None) -> str:
    """What an error and those it arose from say."""
    return f'{error} {_messages(error.__context__)}' if error else ''
