"""The floor under attention's time: what its products, exponentials and memory traffic take alone.

On a CPU all of it is measured on the machine at hand and added, as a core does one after the
other: a pass of the products alone, block by block as attention does them, and one of the
exponentials. (A single product, measured alone, finds the machine at its fastest and the caches
for itself, as no product within attention does.)
On a GPU the exponential and the matrix units work side by side at speeds that are known, and the
slower one is the floor.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from forms import HEADS, Case
from torch import Tensor
from torch.utils.benchmark import Timer

from lesa_mmdet.attention.decomposed import chunked

# Exponentials and half precision operations of the matrix units a second.
GPU_SPEEDS = {'H200': (3.7e12, 989e12), 'H100': (3.7e12, 989e12), 'A100': (2.4e12, 312e12)}


def floors(case: Case, seconds: float = 0.5) -> dict[str, dict[str, float]]:
    """Seconds of the parts of each step that is measured; empty for an unknown GPU."""
    if case.device == 'cuda':
        return _gpu_floors(case)
    positions, heads = case.size**2, case.batch * HEADS
    d, dv = case.head_channels
    key = torch.empty(positions, d)
    block = min(chunked._block_size(key), positions)
    # (n, k, m) of the products a block of queries takes, apart from the one for the logits.
    logits, weighted = (block, d, positions), (block, positions, dv)
    backward = [
        logits,  # again
        (block, dv, positions),  # gradient of the weights
        (dv, block, positions),  # of the values
        (d, block, positions),  # of the keys
        (block, positions, d),  # of the queries
    ]
    blocks = heads * math.ceil(positions / block)
    matrix = cache(torch.randn)  # one of a shape: products share a block of weights
    needed = {logits, weighted, *(backward if case.backward else [])}
    ways = {shape: _fastest_way(shape, matrix, seconds) for shape in needed}
    exponentials = _exponentials_time(block, positions, blocks, seconds)
    # Read queries, keys, values, row and col and write the output; then read all and the output's
    # gradient and write five gradients.
    inputs = heads * positions * (2 * d + dv + 2 * case.size)
    output = heads * positions * dv
    second_per_number = _copy_time(seconds)
    forward = dict(
        products=_products_time([ways[x] for x in (logits, weighted)], blocks, seconds),
        exponentials=exponentials,
        traffic=(inputs + output) * second_per_number,
    )
    if not case.backward:
        return {'forward': forward}
    products = [ways[x] for x in (logits, weighted, *backward)]
    both = dict(
        products=_products_time(products, blocks, seconds),
        exponentials=2 * exponentials,
        traffic=(3 * inputs + 2 * output) * second_per_number,
    )
    return {'forward': forward, 'forward + backward': both}


def _gpu_floors(case: Case) -> dict[str, dict[str, float]]:
    name = torch.cuda.get_device_name()
    speeds = [value for key, value in GPU_SPEEDS.items() if key in name]
    if not speeds:
        return {}
    ((exponentials, operations),) = speeds
    scores = case.batch * HEADS * case.size**4
    d, dv = case.head_channels
    # Backward: logits and weights again, then one product for each gradient but those of row, col.
    counts = {'forward': (1, d + dv), 'forward + backward': (2, d + dv + 3 * d + 2 * dv)}
    return {
        step: dict(slower_unit=max(scores * exps / exponentials, 2 * scores * macs / operations))
        for step, (exps, macs) in counts.items()
    }


def _fastest_way(
    shape: tuple[int, int, int], matrix: Callable[[int, int], Tensor], seconds: float
) -> Callable[[], Tensor]:
    """The fastest of PyTorch's ways to a product of float32 matrices."""
    rows, inner, cols = shape
    a, b, transposed = matrix(rows, inner), matrix(inner, cols), matrix(cols, inner)
    out = torch.empty(rows, cols)
    ways = [lambda: torch.mm(a, b, out=out), lambda: F.linear(a, transposed)]
    if chunked.HAS_ONEDNN:
        product = chunked._onednn_product
        ways += [lambda: product(a, b), lambda: product(a, transposed.t())]
    return min(ways, key=lambda way: _time(way, 1, seconds / len(ways)))


def _products_time(ways: list[Callable[[], Tensor]], blocks: int, seconds: float) -> float:
    """Of some products, all of a block before those of the next."""

    def multiply() -> None:
        for way in ways:
            way()

    return _time(multiply, blocks, seconds)


def _exponentials_time(rows: int, cols: int, count: int, seconds: float) -> float:
    """Of those of some blocks, which caches hold."""
    logits = torch.empty(rows, cols).uniform_(-10, 0)
    out = torch.empty_like(logits)
    return _time(lambda: torch.exp(logits, out=out), count, seconds)


def _copy_time(seconds: float) -> float:
    """Seconds to read or write one float32 of a tensor larger than the caches."""
    source = torch.randn(1 << 25)
    target: Tensor = torch.empty_like(source)
    return _time(lambda: target.copy_(source), 1, seconds) / (2 * source.numel())


def _time(step: Callable[[], object], count: int, seconds: float) -> float:
    """Seconds that a step takes, so many times in a row; the fastest within ``seconds``."""
    timer = Timer('step()', globals=dict(step=step), num_threads=torch.get_num_threads())
    first = timer.timeit(count).mean
    more = int(seconds / (count * first))
    return count * min([first, *(timer.timeit(count).mean for _ in range(more))])
