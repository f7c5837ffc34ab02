"""A demo that trains on a data set it draws itself."""
