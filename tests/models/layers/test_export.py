import pytest
import torch
from onnx import checker
from onnx.reference import ReferenceEvaluator

from lesa_mmdet import ELSA, LESA, AugmentedAttention, SelfAttention


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


@pytest.mark.parametrize('kind', [LESA, SelfAttention, AugmentedAttention, ELSA])
def test_exported_program_takes_maps_of_many_sizes(kind):
    """Of sizes for which tables are cut, left and stretched, and for which 'auto' would differ."""
    torch.manual_seed(0)
    tables = {} if kind is ELSA else dict(feat_size=(9, 8))
    operator = kind(32, 32, num_heads=4, **tables).eval()
    sizes = dict(enumerate(map(torch.export.Dim, ('batch', 'channels', 'height', 'width'))))
    del sizes[1]
    program = torch.export.export(
        operator, (torch.randn(2, 32, 7, 11),), dynamic_shapes={'x': sizes}
    ).module()
    with torch.no_grad():
        for size in ((4, 5), (9, 8), (12, 6), (20, 17)):
            x = torch.randn(3, 32, *size)
            torch.testing.assert_close(program(x), operator(x))
