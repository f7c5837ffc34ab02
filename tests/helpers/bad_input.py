"""Bad input: a table of commands and calls, and what a user is told. Each runs in its own process.

A case is clear if it ends with the exit code that is expected and without a traceback, and the last
line that it prints has the sentence. It is silent if it goes on as if nothing were wrong, hung if
it does not end, over memory if it takes more than it may, and else unclear.

Cases are of two kinds: mistakes, most of them of whole commands, and attacks, calls on what a
stranger sends. Attacks have seconds and some memory, and are run by theme.
"""

import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint

from lesa_mmdet.datasets.shapes import generate
from lesa_mmdet.upstream import MODELS
from lesa_mmdet.utils.command import explain

from helpers.configs import load, shrink
from helpers.paths import DEMO, ROOT
from patches.forked import execute, run_forked
from programs.read_in_children import limit_memory

TIMEOUT = 300  # seconds
# Of an attack. Seconds of the processor, for other processes may run; at its end, of the clock.
CPU_SECONDS, WALL_SECONDS, SPARE_MEMORY = 10, 60, 512 << 20
OVER_MEMORY = 77  # exit code


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
        cfg = shrink(load(DEMO.stem))
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
        do (Callable[..., Any]): Makes the mistake, in a place: a call, or what returns a command
            line, a list that begins with a file of the repository.
        code (int): Exit code; of a call 1 if it raises an error, and 0 if it is to be harmless.
    """

    name: str
    sentence: str
    do: Callable[..., Any]
    code: int = 1


def find_cases(kind: str = 'cases') -> dict[str, Case]:
    """All cases by theme and name: those in the ``CASES`` of every module of bad_input/KIND."""
    found = {}
    folder = ROOT / 'tests' / 'bad_input' / kind
    for module in pkgutil.iter_modules([str(folder)]):
        for case in importlib.import_module(f'bad_input.{kind}.{module.name}').CASES:
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
        tuple[str, str]: What :func:`judge` says, and what was printed.
    """
    output = folder / 'output.txt'
    (folder / 'place').mkdir()
    code = run_forked(_run, name, folder / 'place', output=output, timeout=TIMEOUT)
    return judge(find_cases()[name], code, output.read_text(encoding='utf-8')), output.read_text(
        encoding='utf-8'
    )


def judge(case: Case, code: int | None, printed: str) -> str:
    """'clear', 'silent', 'hung' or 'unclear'."""
    if code is None:
        return 'hung'
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


def run_attacks(theme: str, folder: Path) -> dict[str, tuple[str, str]]:
    """Run the attacks of a theme, each in a process that is forked from one that has begun.

    Args:
        theme (str): Module of bad_input/attacks. If it has a function ``prepare``, that is called
            once, and its result with each place; else the place alone.
        folder (Path): Empty folder.

    Returns:
        dict[str, tuple[str, str]]: The verdict of each by name, and what was printed.
    """
    output = folder / 'output.txt'
    code = run_forked(_run_attacks, theme, folder, output=output, timeout=TIMEOUT)
    assert code == 0, output.read_text(encoding='utf-8')[-3000:]
    return json.loads((folder / 'verdicts.json').read_text(encoding='utf-8'))


def _run_attacks(theme: str, folder: Path) -> None:
    module = importlib.import_module(f'bad_input.attacks.{theme}')
    prepared = [module.prepare(folder)] if hasattr(module, 'prepare') else []
    verdicts = {}
    for index, case in enumerate(module.CASES):
        place = folder / str(index)
        place.mkdir()
        output = place.with_suffix('.txt')
        child = os.fork()
        if not child:
            os.chdir(place)
            _attack(case, Place(place), prepared, output)
        verdicts[case.name] = _judge_attack(case, child, output)
    (folder / 'verdicts.json').write_text(json.dumps(verdicts), encoding='utf-8')


def _attack(case: Case, place: Place, prepared: list, output: Path) -> None:
    """Make an attack in this process, which ends with it."""
    with output.open('w', encoding='utf-8', errors='backslashreplace') as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        sys.stdout = sys.stderr = file
        limit_memory(SPARE_MEMORY)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        code = 0
        try:
            case.do(place, *prepared)
        except BaseException as error:
            code, sentence = 1, explain(error)
            if isinstance(error, MemoryError) or 'memory' in str(error):
                code = OVER_MEMORY
            if sentence is None:
                traceback.print_exc()
            print(f'\n{type(error).__name__}: {error}' if sentence is None else f'\n{sentence}')
        file.flush()
        os._exit(code)


def _judge_attack(case: Case, child: int, output: Path) -> tuple[str, str]:
    """Wait for an attack, and say what came of it."""
    deadline = time.monotonic() + WALL_SECONDS
    while not (found := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not found[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    printed = output.read_text(encoding='utf-8')
    code = os.waitstatus_to_exitcode(found[1]) if found[0] else None
    if code in (-signal.SIGXCPU, -signal.SIGKILL, None):
        return 'hung', printed
    if code in (OVER_MEMORY, -signal.SIGABRT, -signal.SIGSEGV):
        return 'over memory', printed
    if case.code == code == 0:  # harmless
        return 'clear', printed
    verdict = judge(case, code, printed)
    is_shown = all(line.isprintable() for line in printed.splitlines())
    return ('unclear' if verdict == 'clear' and not is_shown else verdict), printed
