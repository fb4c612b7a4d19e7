"""Training: planning, data loading, the training loop, checkpoints and the run log."""
