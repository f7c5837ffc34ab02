"""What Triton compiles our attention kernels to, for each entry of their tables. Needs no GPU.

    python benchmarks/kernels.py --json kernels.json
    PYTHONPATH=folder/of/another/triton python benchmarks/kernels.py

"instructions" are those that a thread issues in the innermost loop, for one logit of the tile that
its warp works on; 32 of them are a thread's share of a tile of 64 x 64 in a program of 4 warps.
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
from measure import check_outputs, save  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402

from lesa_mmdet.attention.decomposed import kernels  # noqa: E402
from lesa_mmdet.attention.decomposed import triton as backend  # noqa: E402

KERNELS = ('forward', 'backward_queries', 'backward_keys')
# Channels of queries and values: one pair for each entry of the tables.
CHANNELS = {'bfloat16': ('16/32', '32/64', '64/128', '128/128'), 'float32': ('16/32', '64/128')}
TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'


def compile_kernels(size: tuple[int, int], channels: str, dtype: str, capability: str) -> list:
    """What the kernels of a forward and a backward pass compile to, with their options."""
    major, minor = map(int, capability.split('.'))
    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget('cuda', 10 * major + minor, 32),
        get_current_device=lambda: 10 * major + minor,  # what is compiled is kept by device
        get_current_stream=lambda device: 0,
    )
    triton.runtime.driver.set_active(driver)
    backend._compute_capability = lambda device: (major, minor)
    compiled = []
    runs = {name: getattr(kernels, name).run for name in KERNELS}
    for name, run in runs.items():
        getattr(kernels, name).run = compiling(run, compiled)
    try:
        d, dv = map(int, channels.split('/'))
        height, width = size
        # Views of a projection's output, as in the operator.
        qkv = torch.zeros(1, 1, 2 * d + dv, height * width, dtype=getattr(torch, dtype)).mT
        row, col = (qkv.new_zeros(1, 1, height * width, length) for length in size)
        inputs = [x.requires_grad_() for x in (*qkv.split((d, d, dv), -1), row, col)]
        out = backend.attend_triton(*inputs)
        torch.autograd.grad(out, inputs, torch.zeros_like(out))
    finally:
        for name, run in runs.items():
            getattr(kernels, name).run = run
    return list(zip(KERNELS, compiled))


def compiling(run, compiled: list):
    """A kernel's launch that ends before the launch."""

    def compile_only(*args, warmup, **options):
        compiled.append((run(*args, warmup=True, **options), options))

    return compile_only


def examine(name: str, compiled, options: dict) -> dict:
    """What the machine code takes of a GPU, and does in its innermost loop."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(compiled.asm['cubin'])
        file.flush()
        usage = run_tool('cuobjdump', '--dump-resource-usage', file.name)
        loop = innermost_loop(run_tool('nvdisasm', '-c', file.name))
    threads = 32 * compiled.metadata.num_warps
    logits = options['M'] * options['ROWS'] * options['COLS']
    products = sum('HGMMA' in line for line in loop)
    waits = sum('WARPGROUP.ARRIVE' in line for line in loop)
    return dict(
        kernel=name,
        queries=options['M'],
        tile=f'{options["ROWS"]} x {options["COLS"]}',
        warps=compiled.metadata.num_warps,
        stages=compiled.metadata.num_stages,
        registers=int(re.search(r'REG:(\d+)', usage)[1]),
        stack=int(re.search(r'STACK:(\d+)', usage)[1]),
        shared=compiled.metadata.shared,
        units='wgmma' if products else 'mma' if any('HMMA' in line for line in loop) else 'none',
        serialized=products > 0 and waits >= products,
        wide_reads=any(re.search(r'LDG(STS)?\..*128', line) for line in loop),
        instructions=round(len(loop) * threads / logits, 2),
    )


def run_tool(name: str, *args: str) -> str:
    return subprocess.run(
        [str(TOOLS / name), *args], check=True, capture_output=True, text=True
    ).stdout


def innermost_loop(assembly: str) -> list[str]:
    """The instructions of the longest loop that has exponentials and no other loop inside."""
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
    return max((x for x in bodies if any('MUFU.EX2' in line for line in x)), key=len)


def measure(
    size: tuple[int, int], dtypes: list[str], channels: list[str], capabilities: list[str]
) -> Iterator[dict]:
    for capability in capabilities:
        for dtype in dtypes:
            for widths in channels or CHANNELS.get(dtype, CHANNELS['bfloat16']):
                for name, found in compile_kernels(size, widths, dtype, capability):
                    about = dict(capability=capability, dtype=dtype, channels=widths)
                    yield {**about, **examine(name, *found)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--capability', nargs='+', default=['8.0', '9.0'], help='of the GPU')
    parser.add_argument('--dtype', nargs='+', default=['bfloat16', 'float32'])
    parser.add_argument('--channels', nargs='+', help='a head has for a query and a value: 16/32')
    parser.add_argument('--size', nargs=2, type=int, default=(64, 64), help='of the map')
    parser.add_argument('--json', help='file for all figures')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs(args.json)
    about = dict(triton=triton.__version__, torch=torch.__version__, size=list(args.size))
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    records = []
    for record in measure(tuple(args.size), args.dtype, args.channels, args.capability):
        if not records:
            print('| ' + ' | '.join(record) + ' |\n|' + '---|' * len(record))
        records.append(record)
        print('| ' + ' | '.join(map(str, record.values())) + ' |', flush=True)
    save(args.json, about, records)


if __name__ == '__main__':
    main()
