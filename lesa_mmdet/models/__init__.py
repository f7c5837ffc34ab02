"""What a config's ``model`` builds: operators, backbones, and heads that mmdet does not have."""
