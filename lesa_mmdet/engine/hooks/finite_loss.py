"""A hook that stops a training whose loss is no number any more."""

from mmengine.runner import Runner

from ...upstream import HOOKS, CheckInvalidLossHook
from ...utils.errors import UserValueError


@HOOKS.register_module()
class FiniteLossHook(CheckInvalidLossHook):
    """mmdet's ``CheckInvalidLossHook``, which says what the loss is and what to do about it.

    mmdet asserts that it is finite, which ``python -O`` removes. This hook looks at every loss:
    mmengine has copied it from the GPU for the log already.

    Args:
        interval (int): Iterations from one look to the next.
    """

    def __init__(self, interval: int = 1) -> None:
        super().__init__(interval)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the loss.

        Raises:
            ValueError: If it is infinite or not a number.
        """
        loss = outputs['loss']
        if self.every_n_train_iters(runner, self.interval) and not loss.isfinite():
            raise UserValueError(
                f'the loss is {loss.item()} in iteration {runner.iter + 1}: the '
                'training stops before its weights are saved; lower the learning rate '
                '(optim_wrapper.optimizer.lr), clip gradients (optim_wrapper.clip_grad.max_norm), '
                'or look for broken boxes with tools/check_dataset.py'
            )
