"""What a config's evaluators build."""
