"""Models of Keras: their files, and their descriptions."""
