"""Weighted sums over the k x k neighbours of every position of a map."""
