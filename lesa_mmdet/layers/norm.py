"""A convolution and the norm behind it."""

from mmcv.cnn.bricks.conv_module import efficient_conv_bn_eval_forward
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def normed_conv(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``.

    The fixed statistics of a batch norm in evaluation mode, as in detection training, are folded
    into the convolution's weight, so that the map between the two is neither computed nor kept for
    the backward pass. All parameters get their gradients.

    Args:
        x (Tensor): Shape (B, C_in, H, W).
        conv (nn.Conv2d): The convolution.
        norm (nn.Module): The norm of its output.

    Returns:
        Tensor: Shape (B, C_out, H', W').
    """
    if isinstance(norm, _BatchNorm) and not norm.training:
        return efficient_conv_bn_eval_forward(norm, conv, x)
    return norm(conv(x))
