"""One step with all its numbers; gradients checked by differences."""
