"""Inputs of attention over a map."""

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
