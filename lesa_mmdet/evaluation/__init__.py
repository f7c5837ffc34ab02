"""What a config's evaluators build: results for the COCO server."""
