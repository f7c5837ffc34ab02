import torch
from hypothesis import given
from hypothesis import strategies as st

from lesa_mmdet.attention.decomposed.reference import attend_normalized, attend_reference

sizes = st.integers(1, 5)


@given(rows=sizes, cols=sizes)
def test_is_the_definition_spelled_out(make_inputs, rows, cols):
    q, k, v, row, col = make_inputs(1, 2, rows, cols, 3, 4)
    out = attend_reference(q, k, v, row, col)
    for head in range(2):
        for i in range(rows * cols):
            logits = [
                q[0, head, i] @ k[0, head, h * cols + w] + row[0, head, i, h] + col[0, head, i, w]
                for h in range(rows)
                for w in range(cols)
            ]
            expected = torch.stack(logits).softmax(0) @ v[0, head]
            torch.testing.assert_close(out[0, head, i], expected)


def test_normalized_terms_are_content_then_position(make_inputs):
    q, k, v, row, col = make_inputs(2, 3, 4, 5, 3, 4)
    scales = torch.rand(6, dtype=torch.float64)

    def normalize(terms):
        assert terms.shape == (2, 6, 20, 20)
        return terms * scales[:, None, None] + 5

    content, position = scales.view(2, 3, 1, 1)
    expected = attend_reference(q * content, k, v, row * position, col * position)
    torch.testing.assert_close(attend_normalized(q, k, v, row, col, normalize), expected)


def test_any_number_of_derivatives(make_inputs):
    inputs = make_inputs(1, 1, 2, 3, 2, 2)
    assert torch.autograd.gradcheck(attend_reference, inputs)
    assert torch.autograd.gradgradcheck(attend_reference, inputs)
