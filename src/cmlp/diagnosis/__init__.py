"""What is wrong with a training, in plain words."""
