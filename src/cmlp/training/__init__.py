"""One training loop, and the rules that are handed to it."""
