"""A hook for training in bfloat16 where it is safe: in the backbone."""

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from mmengine.runner import Runner
from torch import Tensor, nn

from ...checkpoints.fit import unwrap
from ...upstream import HOOKS, Hook

# Layers of mmcv whose kernels know no bfloat16.
FLOAT32_LAYERS = (DeformConv2d, ModulatedDeformConv2d)


@HOOKS.register_module()
class BackboneAutocastHook(Hook):
    """Compute a detector's backbone in bfloat16 under autocast, and everything else in float32.

    mmengine's ``AmpOptimWrapper`` takes the whole detector along. In bfloat16 a coordinate about
    1024 is a multiple of 8 pixels, and mmdet makes anchors and boxes of the type of the maps;
    mmcv's RoIAlign, NMS and deformable convolution know float32 and float16 only. So the maps
    leave the backbone in float32, and deformable convolutions inside compute in float32. The range
    of bfloat16 is that of float32: losses need no scale. Evaluation computes as training does, and
    a CPU as a GPU.
    """

    def before_run(self, runner: Runner) -> None:
        """Switch autocast on around the backbone, and off around deformable convolutions inside."""
        model = unwrap(runner.model)
        self._handles = _switch_autocast(model.backbone, enabled=True)
        for module in model.backbone.modules():
            if isinstance(module, FLOAT32_LAYERS):
                self._handles += _switch_autocast(module, enabled=False)

    def after_run(self, runner: Runner) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()


def _switch_autocast(module: nn.Module, enabled: bool) -> list:
    """Run a module with or without autocast; it takes and returns float32."""
    contexts = []  # a stack: a module may be called again before its first call returns

    def enter(module, inputs):
        context = torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=enabled)
        context.__enter__()
        contexts.append(context)
        return tuple(x.float() for x in inputs)

    def leave(module, inputs, output):  # without an output, if the module failed
        contexts.pop().__exit__(None, None, None)
        if isinstance(output, Tensor):
            return output.float()
        return output and tuple(x.float() for x in output)

    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]
