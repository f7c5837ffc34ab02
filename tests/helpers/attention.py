"""Inputs of attention over a map, and a function whose gradient is changed."""

import torch
from hypothesis import strategies as st

# Images, heads, rows, columns, and channels of a key's and of a value's head.
SIZES = st.tuples(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 17),
    st.integers(1, 17),
    st.integers(1, 9),
    st.integers(1, 9),
)


def with_gradient(change):
    """A function that copies a tensor, and whose gradient is changed."""

    class Changed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return change(grad)

    return Changed.apply
