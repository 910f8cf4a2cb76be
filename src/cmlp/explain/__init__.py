"""For learners: one step with all its numbers; gradients checked by differences."""
