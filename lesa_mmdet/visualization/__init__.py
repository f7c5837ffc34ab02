"""Pictures and the page. What they show is computed elsewhere."""
