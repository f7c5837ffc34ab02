"""The functions of ``mmcv._ext``, mmcv's compiled module, on torchvision's operators.

They have mmcv's names, arguments and outputs; most fill tensors that mmcv has made.
"""

from .installed import (
    explain,
    get_compiler_version,
    get_compiling_cuda_version,
    refuse_mixed_stacks,
)

try:
    import torchvision  # noqa: F401
except (AttributeError, ImportError, OSError, RuntimeError) as error:
    raise ImportError(explain(error)) from error

from .attention import ms_deform_attn_backward, ms_deform_attn_forward
from .deformable import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .losses import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from .masked import masked_col2im_forward, masked_im2col_forward
from .nms import nms, nms_match, softnms
from .roi import roi_align_backward, roi_align_forward, roi_pool_backward, roi_pool_forward

__all__ = [
    '__getattr__',
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'masked_col2im_forward',
    'masked_im2col_forward',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
    'softnms',
]

refuse_mixed_stacks()


def __getattr__(name: str):
    """Stand in for an operator that is not here: mmcv asks for all of them when it is imported."""
    if name.startswith('_'):
        raise AttributeError(f'mmcv_torchvision has no {name}')

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f'{name} is not among the operators of mmcv_torchvision: '
            'mmcv compiled with its operators has it'
        )

    return missing
