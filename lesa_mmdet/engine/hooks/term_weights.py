"""A hook that logs what the terms weigh while a model is trained."""

from mmengine.runner import Runner

from ...analysis.weights import TermWeights, with_mean
from ...checkpoints.fit import unwrap
from ...upstream import HOOKS, Hook
from ...utils.errors import UserValueError


@HOOKS.register_module()
class TermWeightsHook(Hook):
    """Log what the terms of LESA or self-attention weigh, in every validation.

    The mean over the layers appears with the metrics in the log, and in every backend of
    mmengine's visualizer (TensorBoard, wandb, ...), as ``term_weights/unary`` and
    ``term_weights/binary``::

        custom_hooks = [dict(type='TermWeightsHook')]

    It watches the first validation images as they pass, in evaluation mode, so it costs next to
    nothing. In a distributed training they are those of the first process.

    Args:
        num_batches (int): Number of validation batches to look at.
        per_layer (bool): Whether to log the unary share of every layer, too, as
            ``term_weights/layer3.1``, ...
    """

    def __init__(self, num_batches: int = 1, per_layer: bool = False) -> None:
        if num_batches < 1:
            raise UserValueError(f'num_batches has to be at least 1, got {num_batches}')
        self.num_batches = num_batches
        self.per_layer = per_layer

    def before_run(self, runner: Runner) -> None:
        """Fail now, and not after an epoch, if the model has no terms."""
        TermWeights(unwrap(runner.model))

    def before_train(self, runner: Runner) -> None:
        """Say so if nothing will be logged."""
        if runner.val_loop is None:
            runner.logger.warning(
                'TermWeightsHook logs nothing: it looks at validation images, and the config has '
                'no val_dataloader'
            )

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Begin to watch with the first batch."""
        if batch_idx == 0:
            self._weights = TermWeights(unwrap(runner.model)).__enter__()

    def after_val_iter(self, runner: Runner, batch_idx: int, *_, **__) -> None:
        """Stop watching after the last batch that is looked at."""
        if batch_idx + 1 == self.num_batches:
            self._weights.__exit__()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Add the weights to what mmengine's LoggerHook is about to log."""
        self._weights.__exit__()  # if there are fewer batches than num_batches
        unary = self._weights.unary()
        for term, share in with_mean(unary)['mean'].items():
            runner.message_hub.update_scalar(f'val/term_weights/{term}', share)
        if self.per_layer:
            for name, share in unary.items():
                runner.message_hub.update_scalar(f'val/term_weights/{name}', share)
