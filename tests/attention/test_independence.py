"""The code of ``lesa_mmdet.attention`` imports only torch: here it is loaded by its path alone."""

from helpers.paths import ROOT
from helpers.processes import execute

# einops and NumPy come with a plugin of mmdet, but not with torch.
PROGRAM = """
import importlib.util
import sys

for name in ('mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'lesa_mmdet', 'einops', 'numpy', 'triton'):
    sys.modules[name] = None  # importing it fails
import torch

folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    'attention', f'{folder}/__init__.py', submodule_search_locations=[folder]
)
attention = importlib.util.module_from_spec(spec)
sys.modules['attention'] = attention
spec.loader.exec_module(attention)

q, k, v = torch.randn(3, 2, 2, 17 * 16, 4, requires_grad=True)
row, col = torch.randn(2, 2, 17 * 16, 17), torch.randn(2, 2, 17 * 16, 16)
for backend in ('auto', *attention.BACKENDS):
    (grad,) = torch.autograd.grad(attention.attend(q, k, v, row, col, backend=backend).sum(), q)
    assert grad.shape == q.shape
loaded = {name.partition('.')[0] for name, module in sys.modules.items() if module is not None}
print(*sorted(loaded & {'mmcv', 'mmdet', 'mmengine', 'lesa_mmdet'}), 'computed')
"""


def test_loads_and_computes_where_only_torch_can_be_imported():
    assert execute(PROGRAM, ROOT / 'lesa_mmdet' / 'attention').split() == ['computed']
