"""A run: starting it, and what it does besides training."""
