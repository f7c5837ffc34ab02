"""Norms: built from a config, and folded into the convolution before them where that is exact."""

from typing import Any

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.conv_module import efficient_conv_bn_eval_forward
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

# Of a module, and of all modules: a hook expects that the module is called.
_HOOKS = ('_forward_pre_hooks', '_forward_hooks', '_backward_pre_hooks', '_backward_hooks')
_GLOBAL_HOOKS = (
    '_global_forward_pre_hooks',
    '_global_forward_hooks',
    '_global_backward_pre_hooks',
    '_global_backward_hooks',
)


def build_norm(cfg: dict[str, Any] | None, channels: int) -> nn.Module:
    """Build a norm from its config, or the identity from none.

    Args:
        cfg (dict, optional): Config of the norm.
        channels (int): Channels that it normalizes.
    """
    return build_norm_layer(cfg, channels)[1] if cfg else nn.Identity()


def normed_conv(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``.

    The fixed statistics of a batch norm in evaluation mode, as in detection training, are folded
    into the convolution's weight, so that the map between the two is neither computed nor kept for
    the backward pass. All parameters get their gradients. Where folding could make a difference
    (:func:`can_fold`), both modules are called.

    Args:
        x (Tensor): Shape (B, C_in, H, W).
        conv (nn.Module): The convolution.
        norm (nn.Module): The norm of its output.

    Returns:
        Tensor: Shape (B, C_out, H', W').
    """
    if can_fold(conv, norm):
        return efficient_conv_bn_eval_forward(norm, conv, x)
    return norm(conv(x))


def can_fold(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether a norm can be folded into a convolution without calling either module.

    Both are exactly what they seem (no subclass, wrapper, pruned or reparametrized weight), nothing
    hooks them, the statistics are fixed, and all tensors have one dtype.
    """
    plain = type(conv) is nn.Conv2d and type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm)
    if not plain or norm.training or norm.running_var is None:
        return False
    tensors = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    dtypes = {x.dtype for x in tensors if x is not None}
    return len(dtypes) == 1 and not any(map(is_intercepted, (conv, norm)))


def is_intercepted(module: nn.Module) -> bool:
    """Whether something else than its class's ``forward`` runs when a module is called."""
    hooked = any(getattr(module, name) for name in _HOOKS)
    hooked = hooked or any(getattr(torch_module, name) for name in _GLOBAL_HOOKS)
    return hooked or 'forward' in vars(module)
