"""A model as Python source."""
