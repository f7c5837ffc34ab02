"""Compiles the kernels for a GPU that is not there, and prints what they are made of.

python compile_neighborhood.py 80 90
"""

import sys
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget

from lesa_mmdet.attention.neighborhood import kernels
from lesa_mmdet.attention.neighborhood.triton import attend_neighborhood_triton

CASES = [  # heads, d, height, width, k, values' type, matrices
    (3, 32, 40, 64, 7, torch.bfloat16, (False, True)),
    (2, 32, 25, 38, 7, torch.float32, (False, True)),
    (2, 40, 9, 7, 5, torch.float16, (True, True)),
    (1, 3, 4, 5, 3, torch.float32, (False, False)),
]


def compile_only(kernel):
    """Have a kernel compiled and described, but not launched."""
    run = kernel.run

    def describe(*args, warmup, **kwargs):
        compiled = run(*args, warmup=True, **kwargs)
        print('compiled', kernel.__name__, 'v4.b32' in compiled.asm['ptx'])

    kernel.run = describe


def main() -> None:
    for kernel in (kernels.weighted_sum, kernels.backward_weights):
        compile_only(kernel)
    for capability in map(int, sys.argv[1:]):
        target = GPUTarget('cuda', capability, 32)
        triton.runtime.driver.set_active(
            SimpleNamespace(
                get_current_target=lambda target=target: target,
                get_current_device=lambda capability=capability: capability,
                get_current_stream=lambda device: 0,
            )
        )
        for heads, d, height, width, size, dtype, (mul, add) in CASES:
            v = torch.zeros(1, height, width, heads * d, dtype=dtype).permute(0, 3, 1, 2)
            weights = torch.zeros(1, heads, size * size, height, width)
            mul, add = (
                torch.zeros(heads * d, size, size) if wanted else None for wanted in (mul, add)
            )
            inputs = (v, weights, mul, add, 1)
            out = attend_neighborhood_triton(*inputs)
            torch.ops.lesa_mmdet.attend_neighborhood_triton_backward(out, *inputs, [True] * 4)


if __name__ == '__main__':
    main()
