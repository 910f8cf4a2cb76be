"""One training loop, and the rules that it follows."""
