"""Looking inside: what the terms weigh, and where a place looks."""
