import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesa_mmdet.attention import fit_table, relative_logits

sizes = st.integers(1, 9)


@given(size=sizes, smaller=sizes)
def test_a_smaller_map_keeps_the_entry_of_every_offset(size, smaller):
    size, smaller = max(size, smaller), min(size, smaller)
    offsets = torch.arange(1 - size, size)[:, None].float()
    fitted = fit_table(offsets, smaller)
    assert torch.equal(fitted, torch.arange(1 - smaller, smaller)[:, None].float())


@given(size=st.integers(2, 9), factor=st.integers(1, 4))
def test_a_larger_map_stretches_the_table_linearly(size, factor):
    offsets = torch.linspace(-1, 1, 2 * size - 1)[:, None]
    fitted = fit_table(offsets, factor * size)
    expected = torch.linspace(-1, 1, 2 * factor * size - 1)[:, None]
    torch.testing.assert_close(fitted, expected)


def test_a_stretched_table_trains():
    table = torch.randn(5, 3, requires_grad=True)
    fit_table(table, 7).sum().backward()
    assert (table.grad > 0).all()


@given(rows=sizes, cols=sizes)
def test_relative_logits_are_products_with_the_entries_of_the_offsets(make_inputs, rows, cols):
    q = make_inputs(2, 3, rows, cols, 4, 4)[0]
    height = torch.randn(2 * rows - 1, 4, dtype=torch.float64)
    width = torch.randn(2 * cols - 1, 4, dtype=torch.float64)
    row, col = relative_logits(q, height, width)
    for i in range(rows * cols):
        at_row, at_col = divmod(i, cols)
        for to in range(rows):
            expected = q[:, :, i] @ height[to - at_row + rows - 1]
            torch.testing.assert_close(row[:, :, i, to], expected)
        for to in range(cols):
            expected = q[:, :, i] @ width[to - at_col + cols - 1]
            torch.testing.assert_close(col[:, :, i, to], expected)


def test_relative_logits_refuse_tables_of_another_map(make_inputs):
    q = make_inputs(1, 1, 4, 5, 2, 2)[0]
    with pytest.raises(ValueError, match='of a 4 x 4 map, but .* of 20 positions'):
        relative_logits(q, torch.randn(7, 2), torch.randn(7, 2))
