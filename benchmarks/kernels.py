"""What Triton compiles our attention kernels to, for each entry of their tables. Needs no GPU.

    python benchmarks/kernels.py
    PYTHONPATH=folder/of/another/triton python benchmarks/kernels.py

"instructions" are those that a thread issues in the innermost loop, for one logit of the tile that
its warp works on; 32 of them are a thread's share of a tile of 64 x 64 in a program of 4 warps.
For the sum over neighbours (ELSA) they are counted for a product of one weight and one value.
"""

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

os.environ['TRITON_INTERPRET'] = '0'  # read once, while the package is imported

import torch  # noqa: E402
import triton  # noqa: E402
from measure import add_json, check_outputs, save  # noqa: E402
from torch import Tensor  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402

from lesa_mmdet.attention.decomposed import kernels as attention_kernels  # noqa: E402
from lesa_mmdet.attention.decomposed import triton as decomposed  # noqa: E402
from lesa_mmdet.attention.neighborhood import kernels as neighborhood_kernels  # noqa: E402
from lesa_mmdet.attention.neighborhood import triton as neighborhood  # noqa: E402

KERNELS = {
    'forward': attention_kernels.forward,
    'backward_queries': attention_kernels.backward_queries,
    'backward_keys': attention_kernels.backward_keys,
    'sum': neighborhood_kernels.weighted_sum,
    'backward_weights': neighborhood_kernels.backward_weights,
}
# Of a head: channels of queries and values, one pair for each entry of the tables; a single number
# is that of the values whose neighbours are summed.
CHANNELS = {
    'bfloat16': ('16/32', '32/64', '64/128', '128/128', '32'),
    'float32': ('16/32', '64/128', '32'),
}
NEIGHBORS = 7  # along each axis, as in ELSA-Swin
# Matrix units of compute capability 9, of 10, and of all others, by what multiplies in them.
UNITS = {'wgmma': 'HGMMA', 'tcgen05': 'UTCHMMA', 'mma': 'HMMA'}
TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'


def compile_kernels(size: tuple[int, int], channels: str, dtype: str, capability: str) -> list:
    """What the kernels of a forward and a backward pass compile to, with names and options."""
    major, minor = map(int, capability.split('.'))
    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget('cuda', 10 * major + minor, 32),
        get_current_device=lambda: 10 * major + minor,  # what is compiled is kept by device
        get_current_stream=lambda device: 0,
    )
    triton.runtime.driver.set_active(driver)
    decomposed._compute_capability = lambda device: (major, minor)
    operation = attention if '/' in channels else sum_over_neighbors
    compiled = []
    runs = {name: kernel.run for name, kernel in KERNELS.items()}
    for name, run in runs.items():
        KERNELS[name].run = compiling(name, run, compiled)
    try:
        out, inputs = operation(size, channels, getattr(torch, dtype))
        torch.autograd.grad(out, inputs, torch.zeros_like(out))
    finally:
        for name, run in runs.items():
            KERNELS[name].run = run
    return compiled


def attention(size: tuple[int, int], channels: str, dtype: torch.dtype) -> tuple[Tensor, list]:
    """The output, and inputs that are views of a projection's output, as in the operator."""
    d, dv = map(int, channels.split('/'))
    positions = size[0] * size[1]
    qkv = torch.zeros(1, 1, 2 * d + dv, positions, dtype=dtype).mT
    row, col = (qkv.new_zeros(1, 1, positions, length) for length in size)
    inputs = [x.requires_grad_() for x in (*qkv.split((d, d, dv), -1), row, col)]
    return decomposed.attend_triton(*inputs), inputs


def sum_over_neighbors(
    size: tuple[int, int], channels: str, dtype: torch.dtype
) -> tuple[Tensor, list]:
    """The output, and inputs in channels_last memory, as a block of ELSA-Swin has them."""
    d, matrix = int(channels), (int(channels), NEIGHBORS, NEIGHBORS)
    v = torch.zeros(1, *size, d, dtype=dtype).permute(0, 3, 1, 2)
    weights = torch.zeros(1, 1, NEIGHBORS**2, *size, dtype=dtype)
    inputs = [x.requires_grad_() for x in (v, weights, torch.zeros(matrix, dtype=dtype))]
    v, weights, add = inputs
    return neighborhood.attend_neighborhood_triton(v, weights, None, add, 1), inputs


def compiling(name: str, run, compiled: list):
    """A kernel's launch that ends before the launch."""

    def compile_only(*args, warmup, **options):
        of_what = f'{name} (transposed)' if options.get('TRANSPOSED') else name
        compiled.append((of_what, run(*args, warmup=True, **options), options))

    return compile_only


def examine(name: str, compiled, options: dict) -> dict:
    """What the machine code takes of a GPU, and does in its innermost loop."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(compiled.asm['cubin'])
        file.flush()
        usage = run_tool('cuobjdump', '--dump-resource-usage', file.name)
        loop = innermost_loop(run_tool('nvdisasm', '-c', '-ndf', file.name))
    threads = 32 * compiled.metadata.num_warps
    if 'ROWS' in options:
        tile, pairs = f'{options["ROWS"]} x {options["COLS"]}', options['ROWS'] * options['COLS']
    else:
        tile, pairs = f'{options["SIZE"]} x {options["SIZE"]}', options['D']
    products = sum('HGMMA' in line for line in loop)
    waits = sum('WARPGROUP.ARRIVE' in line for line in loop)
    return dict(
        kernel=name,
        queries=options['M'],
        tile=tile,
        warps=compiled.metadata.num_warps,
        stages=compiled.metadata.num_stages,
        registers=int(re.search(r'REG:(\d+)', usage)[1]),
        stack=int(re.search(r'STACK:(\d+)', usage)[1]),
        shared=compiled.metadata.shared,
        units=next((name for name, code in UNITS.items() if any(code in x for x in loop)), 'none'),
        serialized=products > 0 and waits >= products,
        wide_reads=any(re.search(r'LDG(STS)?\..*128', line) for line in loop),
        instructions=round(len(loop) * threads / (options['M'] * pairs), 2),
    )


def run_tool(name: str, *args: str) -> str:
    return subprocess.run(
        [str(TOOLS / name), *args], check=True, capture_output=True, encoding='utf-8'
    ).stdout


def innermost_loop(assembly: str) -> list[str]:
    """The instructions of the longest loop with no other loop inside, of those with exponentials.

    A sum over neighbours has none.
    """
    instructions, labels, loops = [], {}, []
    for line in assembly.splitlines():
        label = re.match(r'\s*(\.L_x_\d+):', line)
        instruction = re.match(r'\s*/\*[0-9a-f]{4,}\*/\s+(.*?);', line)
        if label:
            labels[label[1]] = len(instructions)
        elif instruction:
            instructions.append(instruction[1])
    for end, instruction in enumerate(instructions, 1):
        target = re.search(r'\bBRA\b.*`\((\.L_x_\d+)\)', instruction)
        if target and labels.get(target[1], end) < end:
            loops.append((labels[target[1]], end))
    bodies = [
        instructions[start:end]
        for start, end in loops
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in loops)
    ]
    with_exponentials = [x for x in bodies if any('MUFU.EX2' in line for line in x)]
    return max(with_exponentials or bodies, key=len)


def measure(
    size: tuple[int, int], dtypes: list[str], channels: list[str], capabilities: list[str]
) -> Iterator[dict]:
    for capability in capabilities:
        for dtype in dtypes:
            for widths in channels or CHANNELS.get(dtype, CHANNELS['bfloat16']):
                for found in compile_kernels(size, widths, dtype, capability):
                    about = dict(capability=capability, dtype=dtype, channels=widths)
                    yield {**about, **examine(*found)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument(
        '--capability', nargs='+', default=['8.0', '9.0', '10.0'], help='of the GPU'
    )
    parser.add_argument('--dtype', nargs='+', default=['bfloat16', 'float32'])
    parser.add_argument('--channels', nargs='+', help='of a head: 16/32, or 32 for ELSA')
    parser.add_argument('--size', nargs=2, type=int, default=(64, 64), help='of the map')
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs(args.json)
    about = dict(name=f'triton-{triton.__version__}', torch=torch.__version__, size=list(args.size))
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    records = []
    for record in measure(tuple(args.size), args.dtype, args.channels, args.capability):
        if not records:
            print('| ' + ' | '.join(record) + ' |\n|' + '---|' * len(record))
        records.append(record)
        print('| ' + ' | '.join(map(str, record.values())) + ' |', flush=True)
    save(args.json, 'kernels', about, records)


if __name__ == '__main__':
    main()
