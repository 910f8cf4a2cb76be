"""A model as JavaScript."""
