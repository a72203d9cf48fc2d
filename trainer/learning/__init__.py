"""One update of the weights: scores, the step, the optimizer, and who owns the model."""
