"""A hook for training that goes on after an interruption as if there had been none."""

from functools import partial

import numpy as np
from mmengine.dist import broadcast_object_list
from mmengine.runner import Runner, set_random_seed

from ...upstream import HOOKS, DistSamplerSeedHook


@HOOKS.register_module()
class EpochSeedHook(DistSamplerSeedHook):
    """Let the random numbers of an epoch depend on the run's seed and the epoch alone.

    A checkpoint of mmengine holds the seed, but no random state: what a resumed run draws (order of
    the images, flips, sizes, samples of boxes) is not what the run would have drawn. This hook
    starts all of it anew with every epoch, so that ``--resume`` continues exactly from a checkpoint
    at an epoch's end. It takes the place of mmengine's ``DistSamplerSeedHook``::

        default_hooks = dict(sampler_seed=dict(type='EpochSeedHook'))
        train_dataloader = dict(persistent_workers=False)

    Workers that persist draw on over the epochs, out of reach from here: with them, augmentations
    differ after a resume, and a warning says so.
    """

    def before_train(self, runner: Runner) -> None:
        """Give the sampler the seed of the run, which a resumed run knows only by now."""
        loader = runner.train_dataloader
        if loader.persistent_workers:
            runner.logger.warning(
                'train_dataloader.persistent_workers is True: after a resume, augmentations differ '
                'from those of an uninterrupted run. Set it to False to continue exactly.'
            )
        # With randomness.diff_rank_seed processes differ; the checkpoint has the seed of the first.
        seeds = [runner.seed]
        broadcast_object_list(seeds)
        sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
        if hasattr(sampler, 'seed'):
            sampler.seed = seeds[0]

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed Python, NumPy and torch, in this process and in the workers that it will start."""
        super().before_train_epoch(runner)
        # 31 bits: workers add small numbers to theirs, and NumPy takes 32.
        state = np.random.SeedSequence([runner.seed, runner.epoch]).generate_state(2) >> 1
        process_seed, worker_seed = state.tolist()
        set_random_seed(process_seed)
        loader = runner.train_dataloader
        if 'seed' in getattr(loader.worker_init_fn, 'keywords', ()):
            loader.worker_init_fn = partial(loader.worker_init_fn, seed=worker_seed)
