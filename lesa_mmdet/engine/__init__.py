"""A run: what is checked before it, how it starts and goes on, and what its hooks do."""
