"""Learn weights: the loop, its optimizer, checkpoints, time and log."""
