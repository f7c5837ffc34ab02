"""A hook that refuses an image whose masks would not fit into memory."""

from mmengine.runner import Runner

from ...checkpoints.fit import unwrap
from ...models.mask_memory import guard_masks
from ...upstream import HOOKS, Hook


@HOOKS.register_module()
class MaskMemoryHook(Hook):
    """Say that an image is too large for masks, instead of being killed for it."""

    def before_run(self, runner: Runner) -> None:
        """Look at the images of every evaluation from now on."""
        self._handle = guard_masks(unwrap(runner.model))

    def after_run(self, runner: Runner) -> None:
        """Leave the model as it was."""
        self._handle.remove()
