"""A hook for training that goes on after an interruption as if there had been none."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from mmengine.dist import broadcast_object_list
from mmengine.runner import Runner, set_random_seed
from torch.utils.data import DataLoader

from ...upstream import HOOKS, DistSamplerSeedHook


@HOOKS.register_module()
class EpochSeedHook(DistSamplerSeedHook):
    """Let random numbers depend on the run's seed and on how far it is, alone.

    A checkpoint of mmengine holds the seed, but no random state: what a resumed run draws (order of
    the images, flips, sizes, samples of boxes) is not what the run would have drawn. This hook
    starts all of it anew with every epoch, or, in a training by iterations, with every iteration,
    so that ``--resume`` continues exactly from a checkpoint at an epoch's end or of any iteration.
    It takes the place of mmengine's ``DistSamplerSeedHook``::

        default_hooks = dict(sampler_seed=dict(type='EpochSeedHook'))
        train_dataloader = dict(persistent_workers=False)

    With ``accumulative_counts`` it does so where gradients have just been used: a checkpoint has
    none, and a warning says how many are lost.

    In a training by iterations, mmengine draws all batches anew that were trained before. In one
    by epochs, workers that persist draw on over the epochs, out of reach from here: with them,
    augmentations differ after a resume, and a warning says so.
    """

    def before_train(self, runner: Runner) -> None:
        """Give the sampler the seed of the run, which a resumed run knows only by now."""
        loop = runner.train_loop
        by_iterations = hasattr(loop, 'dataloader_iterator')
        if by_iterations:
            loop.dataloader = _build_anew(runner)
        elif loop.dataloader.persistent_workers:
            runner.logger.warning(
                'train_dataloader.persistent_workers is True: after a resume, augmentations differ '
                'from those of an uninterrupted run. Set it to False to continue exactly.'
            )
        counts = (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
        if lost := runner.iter % counts:
            runner.logger.warning(
                f'the checkpoint is of iteration {runner.iter}, and gradients are summed over '
                f'{counts}: those of the last {lost} are not in it, and the training does not '
                'continue exactly'
            )
        # With randomness.diff_rank_seed processes differ; the checkpoint has the seed of the first.
        seeds = [runner.seed]
        broadcast_object_list(seeds)
        loader = loop.dataloader
        sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
        if hasattr(sampler, 'seed'):
            sampler.seed = seeds[0]
        if by_iterations:
            endless = type(loop.dataloader_iterator)
            loop.dataloader_iterator = _SeededBatches(endless(loader), runner.seed)
        elif runner.iter % len(loader):
            runner.logger.warning(
                f'the checkpoint is of iteration {runner.iter}, and an epoch has {len(loader)}: '
                'the training does not continue exactly, but from the start of epoch '
                f'{runner.epoch + 1}'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed Python, NumPy and torch, in this process and in the workers that it will start."""
        super().before_train_epoch(runner)
        if hasattr(runner.train_loop, 'dataloader_iterator'):
            return
        process_seed, worker_seed = _seeds(runner.seed, runner.epoch)
        set_random_seed(process_seed)
        loader = runner.train_dataloader
        if 'seed' in getattr(loader.worker_init_fn, 'keywords', ()):
            loader.worker_init_fn = partial(loader.worker_init_fn, seed=worker_seed)


class _SeededBatches:
    """The batches of a training by iterations; each begins with random numbers of its own.

    Those of a batch that is drawn in this process, and of the step that it is for.
    """

    def __init__(self, batches: Iterator, seed: int) -> None:
        self._batches, self._seed, self._drawn = batches, seed, 0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        set_random_seed(_seeds(self._seed, self._drawn)[0])
        self._drawn += 1
        return next(self._batches)

    def skip_iter(self, count: int) -> None:
        """Draw batches that were trained before, as OneDL's loop asks: workers draw on behind."""
        for _ in range(count):
            next(self)


def _build_anew(runner: Runner) -> DataLoader:
    """A data loader whose sampler and workers begin at the start, with the seed of the run.

    The loop's own has begun already, with the seed that the run had before it resumed.
    """
    cfg, loader = runner._train_dataloader, runner.train_dataloader
    if not isinstance(cfg, Mapping):  # built by hand
        return loader
    return runner.build_dataloader(dict(cfg, dataset=loader.dataset), seed=runner.seed)


def _seeds(*of: int) -> list[int]:
    """Two seeds for some numbers. 31 bits: workers add small ones to theirs, and NumPy takes 32."""
    return (np.random.SeedSequence(of).generate_state(2) >> 1).tolist()
