"""X, y and weights of a network, validated once."""
