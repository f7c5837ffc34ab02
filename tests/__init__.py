"""A package, so that another one of this name that is installed is not taken for it."""
