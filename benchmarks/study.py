"""A study in miniature: the demo's detector with every operator, on two generated data sets.

A second one, ``--study from-resnet``, goes on from trained convolutions (docs/study.md).

A run trains one model on one data set from one seed, on one thread. What the file of results holds
is not run again, and a run that was killed goes on from its last epoch:

    nice -n 19 python benchmarks/study.py --seeds 5 --jobs 2
    nice -n 19 python benchmarks/study.py --seeds 4 --study from-resnet
    python benchmarks/study.py --report --plot docs/images/study.png
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import NamedTuple

import mmdet
import study_report
import torch
from measure import RSS_UNIT, end_with_parent, machine
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, save_checkpoint
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from study_models import DATA_SETS, MODELS, STUDIES

from lesa_mmdet.engine.hooks import TermWeightsHook
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.errors import UserValueError

HERE = Path(__file__).parent
CONFIG = HERE / 'study_config.py'
RESULTS = {'operators': HERE / 'study.json', 'from-resnet': HERE / 'study_from_resnet.json'}
VAL = Path('annotations', 'val.json')

# Fresh processes that have imported all this already.
PROCESSES = multiprocessing.get_context('forkserver')
PROCESSES.set_forkserver_preload(['study'])


class Run(NamedTuple):
    """One training: on a data set, of a model, from a seed."""

    data_set: str
    model: str
    seed: int

    def __str__(self) -> str:
        return f'{self.data_set}, {self.model}, seed {self.seed}'

    @classmethod
    def of(cls, result: dict) -> 'Run':
        """The run of a result."""
        return cls(*(result[name] for name in cls._fields))

    def folder(self, work_dir: Path) -> Path:
        """Where it keeps checkpoints, log and result."""
        return work_dir / f'{self.data_set}-{self.model}-{self.seed}'

    def weights(self, work_dir: Path) -> Path:
        """Where its last checkpoint is kept, if others start from it."""
        return work_dir / 'starts' / f'{self.data_set}-{self.model}-{self.seed}.pth'

    def is_planned(self) -> bool:
        """Whether the model is to be trained on the data set."""
        data_sets = MODELS[self.model].data_sets
        return data_sets is None or self.data_set in data_sets

    def start(self) -> 'Run | None':
        """The run from whose last checkpoint it starts, if it does."""
        model = MODELS[self.model].start
        return model and self._replace(model=model)


class Cost(Hook):
    """What training costs: processor time of the steps, and memory of the process above the start.

    Processor time on one thread hardly depends on what else the machine does.
    """

    def before_train(self, runner: Runner) -> None:
        self.seconds = []
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def before_train_iter(self, *_, **__) -> None:
        self.start = time.process_time()

    def after_train_iter(self, *_, **__) -> None:
        self.seconds.append(time.process_time() - self.start)
        self.mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before) * RSS_UNIT
        self.mib /= 2**20


class Start(Hook):
    """What a run starts from: its AP before any step, and fresh operators if it is to have them."""

    priority = 'VERY_HIGH'  # before anybody looks whether the checkpoint fits

    def __init__(self, fresh_operators: bool) -> None:
        self.fresh_operators = fresh_operators

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.fresh_operators and not runner._resume:
            own, given = runner.model.state_dict(), checkpoint['state_dict']
            fitting = {
                key: value
                for key, value in given.items()
                if key in own and value.shape == own[key].shape
            }
            checkpoint['state_dict'] = {**own, **fitting}

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.iter == 0:
            runner.val_loop.run()


def schedule(cfg: Config) -> dict:
    """What all runs of one file of results have in common."""
    return dict(
        **cfg.data,
        epochs=cfg.max_epochs,
        batch_size=cfg.train_dataloader.batch_size,
        lr=cfg.optim_wrapper.optimizer.lr,
    )


def configure(run: Run, work_dir: Path) -> Config:
    """The config of a run; the data set is drawn if it is not there."""
    cfg = Config.fromfile(CONFIG)
    data_set = DATA_SETS[run.data_set]
    root = data_set.generate(work_dir / 'data' / run.data_set, **cfg.data)
    heads = ('bbox_head', 'mask_head')
    model = MODELS[run.model]
    cfg.merge_from_dict({'model': model.changes})
    if model.epochs:
        cfg.train_cfg.update(max_epochs=model.epochs, val_interval=model.epochs)
        cfg.param_scheduler[-1].T_max = model.epochs
    if model.context_rate != 1:
        faster = dict(lr_mult=model.context_rate)
        custom = {'.context.': faster, '.fusion.': faster}
        cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=custom)
    for head in heads:
        cfg.model.roi_head[head].num_classes = len(data_set.classes)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.dataset.update(data_root=f'{root}/', metainfo=dict(classes=data_set.classes))
        if split != 'train':
            annotations, detections = str(root / VAL), str(run.folder(work_dir) / 'detections')
            cfg[f'{split}_evaluator'].update(ann_file=annotations, outfile_prefix=detections)
    folder, start = run.folder(work_dir), run.start()
    cfg.merge_from_dict(dict(work_dir=str(folder), resume=True, randomness=dict(seed=run.seed)))
    if start and not any(folder.glob('epoch_*.pth')):
        cfg.merge_from_dict(dict(load_from=str(start.weights(work_dir)), resume=False))
    return cfg


def train(run: Run, work_dir: Path) -> dict:
    """Train and evaluate in this process, from where a killed run has come to."""
    epochs = MODELS[run.model].epochs or Config.fromfile(CONFIG).max_epochs
    # If it was killed in the evaluation at the end, the last epoch is run again, and evaluated.
    (run.folder(work_dir) / f'epoch_{epochs}.pth').unlink(missing_ok=True)
    runner = Runner.from_cfg(configure(run, work_dir))
    cost = Cost()
    runner.register_hook(cost)
    model = MODELS[run.model]
    if model.start:
        runner.register_hook(Start(model.fresh_operators))
    if model.has_terms:
        runner.register_hook(TermWeightsHook(num_batches=len(runner.val_dataloader)))
    runner.train()
    if any(other.start == run.model for other in MODELS.values()):
        keep_weights(runner, run.weights(work_dir))
    scalars = runner.message_hub.log_scalars
    result = {
        **run._asdict(),
        'box_ap': scalars['val/coco/bbox_mAP'].current(),
        'mask_ap': scalars['val/coco/segm_mAP'].current(),
        'located_ap': round(located_ap(runner.cfg.val_evaluator), 4),
        'parameters': sum(p.numel() for p in runner.model.parameters()),
        'step_seconds': round(statistics.median(cost.seconds), 4),
        'mib': round(cost.mib, 1),
    }
    if model.start:  # the first evaluation was before any step
        for key, name in (('box_ap', 'bbox'), ('mask_ap', 'segm')):
            result[f'start_{key}'] = float(scalars[f'val/coco/{name}_mAP'].data[0][0])
    if model.has_terms:
        result['unary'] = round(scalars['val/term_weights/unary'].current(), 4)
    return {**result, **where()}


def keep_weights(runner: Runner, path: Path) -> None:
    """Keep the weights of a trained model, for others to start from."""
    path.parent.mkdir(exist_ok=True)
    save_checkpoint({'meta': {}, 'state_dict': runner.model.state_dict()}, str(path))


def located_ap(evaluator: dict) -> float:
    """Box AP of an evaluator's detections if their classes do not count."""
    truth = COCO(evaluator['ann_file'])
    detections = truth.loadRes(evaluator['outfile_prefix'] + '.bbox.json')
    evaluation = COCOeval(truth, detections, 'bbox')
    evaluation.params.useCats = 0
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    return float(evaluation.stats[0])


def where() -> dict:
    """Machine, versions and commit."""
    git = ['git', '-C', str(HERE), 'describe', '--always', '--dirty', '--exclude=*']
    commit = subprocess.run(git, stdout=subprocess.PIPE, encoding='utf-8').stdout.strip()
    about = machine('cpu')
    versions = f'Python {platform.python_version()}, torch {about["torch"]}'
    return dict(
        machine=about['name'], versions=f'{versions}, mmdet {mmdet.__version__}', commit=commit
    )


def run_to_file(run: Run, work_dir: Path) -> None:
    """Run in this process, which has been made for it, and write result and log to its folder."""
    end_with_parent()
    folder = run.folder(work_dir)
    with (folder / 'log.txt').open('a', encoding='utf-8') as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        torch.set_num_threads(1)
        write(folder / 'result.json', json.dumps(train(run, work_dir)))


def run_apart(run: Run, work_dir: Path) -> dict | None:
    """Result of a run in a process of its own; None if it failed."""
    folder = run.folder(work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / 'result.json'
    if not result.is_file():  # else the study was killed before it took the result
        process = PROCESSES.Process(target=run_to_file, args=(run, work_dir))
        process.start()
        process.join()
        if process.exitcode:
            print(f'{run} failed with exit code {process.exitcode}: see {folder / "log.txt"}')
            return None
    return json.loads(result.read_text(encoding='utf-8'))


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + '.tmp')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)


def load(path: Path, settings: dict) -> list[dict]:
    """The results so far.

    Raises:
        ValueError: If they are of another schedule.
    """
    if not path.is_file():
        return []
    stored = json.loads(path.read_text(encoding='utf-8'))
    if stored['schedule'] != settings:
        raise UserValueError(
            f'{path} holds results of the schedule {stored["schedule"]}, not of {settings}: they '
            'cannot be compared; name another file with --results'
        )
    return stored['runs']


def save(path: Path, settings: dict, results: Sequence[dict]) -> None:
    """Keep the results, a line each."""
    order = {name: index for names in (DATA_SETS, MODELS) for index, name in enumerate(names)}
    runs = sorted(results, key=lambda r: (order[r['data_set']], order[r['model']], r['seed']))
    lines = ',\n'.join(f'  {json.dumps(result)}' for result in runs)
    write(path, f'{{"schedule": {json.dumps(settings)},\n "runs": [\n{lines}\n]}}\n')


@contextmanager
def ended_with(pool: ThreadPoolExecutor) -> Iterator[None]:
    """After a signal or an error here, end what runs, and start nothing else."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.kill()
        raise


def study(args: argparse.Namespace, settings: dict) -> bool:
    """Run what is missing, seed by seed; whether all of it went well."""
    results = load(args.results, settings)
    done = set(map(Run.of, results))
    asked = product(range(args.seeds), args.data_sets, args.models)
    runs = (Run(*what, seed) for seed, *what in asked)
    missing = [run for run in runs if run not in done and run.is_planned()]
    missing = with_starts(missing, args.work_dir)
    print(f'{len(done)} runs are done, {len(missing)} are to be run, {args.jobs} side by side')
    for name in args.data_sets:  # before processes draw the same
        configure(Run(name, next(iter(MODELS)), 0), args.work_dir)
    start, failed = time.monotonic(), 0
    with ThreadPoolExecutor(args.jobs) as pool, ended_with(pool):
        futures = {pool.submit(run_apart, run, args.work_dir): run for run in missing}
        for count, future in enumerate(as_completed(futures), 1):
            run, result = futures[future], future.result()
            if result is None:
                failed += 1
                continue
            results = [other for other in results if Run.of(other) != run] + [result]
            save(args.results, settings, results)
            shutil.rmtree(run.folder(args.work_dir))
            left = (time.monotonic() - start) / count * (len(missing) - count)
            print(
                f'{time.strftime("%H:%M:%S")} {count}/{len(missing)} {run}: '
                f'box AP {result["box_ap"]:.3f}, mask AP {result["mask_ap"]:.3f}; '
                f'{timedelta(seconds=round(left))} to go',
                flush=True,
            )
    return not failed


def with_starts(runs: Sequence[Run], work_dir: Path) -> list[Run]:
    """Runs, and in front of each the one that it starts from, unless its weights are there."""
    pairs = ((run.start(), run) for run in runs)
    needed = (
        each
        for start, run in pairs
        for each in (start, run)
        if each is run or (start and not start.weights(work_dir).is_file())
    )
    return list(dict.fromkeys(needed))


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--seeds', type=int, default=5, help='runs of a model on a data set')
    parser.add_argument('--study', choices=STUDIES, default='operators')
    parser.add_argument('--models', nargs='+', choices=MODELS, help="default: the study's")
    parser.add_argument('--data-sets', nargs='+', choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/study'))
    parser.add_argument('--results', type=Path, help="file of all results; default: the study's")
    parser.add_argument('--report', action='store_true', help='print the tables, run nothing')
    parser.add_argument('--plot', type=Path, help='draw the figure, run nothing')
    args = parser.parse_args()

    os.environ['OMP_NUM_THREADS'] = '1'
    settings = schedule(Config.fromfile(CONFIG))
    if args.report:
        for path in [args.results] if args.results else RESULTS.values():
            print(study_report.tables(load(path, settings)), end='\n\n')
    args.models = args.models or STUDIES[args.study]
    args.results = args.results or RESULTS[args.study]
    if args.plot:
        study_report.plot(load(args.results, settings), args.plot)
    if args.report or args.plot:
        return
    if not study(args, settings):
        sys.exit(1)


if __name__ == '__main__':
    main()
