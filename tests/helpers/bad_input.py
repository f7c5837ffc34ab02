"""Bad input: a table of commands and calls, and what a user is told. Each runs in its own process.

A case is clear if it ends with the exit code that is expected and without a traceback, and the last
line that it prints has the sentence. It is silent if it goes on as if nothing were wrong, and else
unclear.
"""

import importlib
import json
import os
import pkgutil
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint

from lesa_mmdet.datasets.shapes import generate
from lesa_mmdet.upstream import MODELS

from helpers.configs import shrink
from helpers.paths import DEMO, ROOT
from patches.forked import execute, run_forked

TIMEOUT = 300  # seconds


class Place:
    """A folder of a case, and what cases put into it.

    Attributes:
        folder (Path): The folder, the working directory of calls. Commands run in the repository.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, text: str = '') -> Path:
        """A file with some text."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
        return path

    def data(self, change: Callable[[dict], Any] | None = None, split: str = 'train') -> Path:
        """Generated images, two for training and one for validation; annotations may be changed."""
        root = generate(self.folder / 'data', num_train=2, num_val=1, image_size=64)
        for name in ('train', 'val'):
            target = root / 'annotations' / f'instances_{name}.json'
            if not target.exists():
                shutil.copy(root / 'annotations' / f'{name}.json', target)
        if change:
            path = root / 'annotations' / f'instances_{split}.json'
            content = json.loads(path.read_text(encoding='utf-8'))
            change(content)
            path.write_text(json.dumps(content), encoding='utf-8')
        return root

    def config(self, change: Callable[[Config], Any] | None = None) -> Path:
        """A tiny detector on these images, which trains one epoch within seconds."""
        cfg = shrink(Config.fromfile(DEMO))
        cfg.model.backbone.input_size = (64, 64)
        root = self.folder / 'data'
        for split, name in (('train', 'train'), ('val', 'val'), ('test', 'val')):
            loader = cfg[f'{split}_dataloader']
            loader.update(batch_size=1, num_workers=0, persistent_workers=False)
            loader.dataset.update(
                data_root=f'{root}/', ann_file=f'annotations/instances_{name}.json'
            )
            for step in loader.dataset.pipeline:
                if 'scale' in step:
                    step.scale = (64, 64)
        for split in ('val', 'test'):
            cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_val.json'
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
        cfg.work_dir = str(self.folder / 'work')
        if change:
            change(cfg)
        path = self.folder / 'config.py'
        cfg.dump(path)
        return path

    def checkpoint(self, config: Path) -> Path:
        """Random weights of a config's detector, as a training saves them."""
        cfg = Config.fromfile(config)
        with DefaultScope.overwrite_default_scope('mmdet'):
            state_dict = MODELS.build(cfg.model).state_dict()
        meta = dict(dataset_meta=dict(cfg.metainfo))
        save_checkpoint(dict(meta=meta, state_dict=state_dict), str(self.folder / 'random.pth'))
        return self.folder / 'random.pth'


@dataclass
class Case:
    """A mistake and what is said about it.

    Attributes:
        name (str): What is wrong.
        sentence (str): Regular expression for the last line of what is printed.
        do (Callable[[Place], Any]): Makes the mistake: a call, or what returns a command line,
            a list that begins with a file of the repository.
        code (int): Exit code; of a call 1 if it raises an error.
    """

    name: str
    sentence: str
    do: Callable[[Place], Any]
    code: int = 1


def find_cases() -> dict[str, Case]:
    """All cases by theme and name: those in the ``CASES`` of every module of bad_input/cases."""
    found = {}
    folder = ROOT / 'tests' / 'bad_input' / 'cases'
    for module in pkgutil.iter_modules([str(folder)]):
        for case in importlib.import_module(f'bad_input.cases.{module.name}').CASES:
            name = f'{module.name}: {case.name}'
            assert name not in found, f'two cases are named {name}'
            found[name] = case
    return found


def run_case(name: str, folder: Path) -> tuple[str, str]:
    """Run a case.

    Args:
        name (str): Its theme and name.
        folder (Path): Empty folder.

    Returns:
        tuple[str, str]: 'clear', 'silent' or 'unclear', and what was printed.
    """
    output = folder / 'output.txt'
    (folder / 'place').mkdir()
    code = run_forked(_run, name, folder / 'place', output=output, timeout=TIMEOUT)
    return judge(find_cases()[name], code, output.read_text(encoding='utf-8')), output.read_text(
        encoding='utf-8'
    )


def judge(case: Case, code: int | None, printed: str) -> str:
    """'clear', 'silent' or 'unclear'."""
    lines = [line for line in printed.splitlines() if line.strip()]
    said = bool(lines) and re.search(case.sentence, lines[-1]) is not None
    said = said and 'Traceback' not in printed
    if code == case.code and said:
        return 'clear'
    return 'silent' if code == 0 else 'unclear'


def _run(name: str, folder: Path) -> None:
    """Make the mistake of a case."""
    os.chdir(folder)
    result = _call(find_cases()[name].do, Place(folder))
    if isinstance(result, list):
        execute([str(part) for part in result])


def _call(do: Callable[[Place], Any], place: Place) -> Any:
    try:
        return do(place)
    except Exception as error:  # of a call: what Python says is its last line
        sys.exit(f'{type(error).__name__}: {error}')
