"""For learners: one step with all its numbers; gradients by differences; attributions."""
