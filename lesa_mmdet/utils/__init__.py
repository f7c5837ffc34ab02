"""What knows no model: commands, errors, configs, images, paths, text."""
