"""Names of PyTorch that are not for others to use: all that attention takes, in a table."""

from typing import NamedTuple


class Private(NamedTuple):
    """A name of another package that is not for others to use.

    Attributes:
        name (str): Where it is; a function's with its arguments, if it is overridden or passed on.
        users (str): Our modules that use it.
        without (str): What happens if it is gone.
    """

    name: str
    users: str
    without: str


_AT_ONCE = 'AttributeError when attention is computed first'
PRIVATE = (
    Private('torch._C._are_functorch_transforms_active', 'attention.registration', _AT_ONCE),
    Private('torch._C._AutoDispatchBelowAutograd', 'attention.registration', _AT_ONCE),
    Private(
        'torch._softmax_backward_data',
        'attention.decomposed.chunked',
        "AttributeError in the first backward pass of the backend 'chunked'",
    ),
    Private(
        'torch.ops.mkldnn._linear_pointwise',
        'attention.decomposed.chunked',
        "a warning, and PyTorch's own products: half as fast on CPUs not from Intel",
    ),
    Private(
        'torch._C._current_graph_task_id',
        'attention.first_use',
        "AttributeError when 'auto' first meets a GPU that can run Triton",
    ),
    Private(
        'torch.nn.modules.batchnorm._BatchNorm',
        'attention.scales',
        'ImportError when the package is imported',
    ),
)
