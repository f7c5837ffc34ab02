import pytest
import torch
from onnx import checker
from onnx.reference import ReferenceEvaluator

from lesa_mmdet import LESA, SelfAttention


@pytest.mark.parametrize('kind', [LESA, SelfAttention])
@pytest.mark.parametrize('position, size', [('decomposed', (17, 20)), ('flattened', (5, 4))])
def test_onnx_has_standard_operators_and_the_same_output(kind, position, size):
    torch.manual_seed(0)
    operator = kind(32, 32, feat_size=size, num_heads=4, position=position).eval()
    image = torch.randn(1, 32, *size)
    model = torch.onnx.export(operator, (image,)).model_proto
    checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {''}
    (actual,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(actual), operator(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('kind', [LESA, SelfAttention])
def test_exported_program_keeps_attention_in_linear_memory(kind):
    operator = kind(32, 32, feat_size=(17, 20), num_heads=4).eval()
    image = torch.randn(1, 32, 17, 20)
    program = torch.export.export(operator, (image,))
    assert torch.ops.lesa_mmdet.attend_chunked.default in {
        node.target for node in program.graph.nodes
    }
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), operator(image))
