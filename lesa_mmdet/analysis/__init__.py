"""Numbers about a model: what its terms weigh, where a position looks, what it costs."""
