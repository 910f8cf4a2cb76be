"""A model as C source."""
