"""Data sets: opened, split, fingerprinted and converted."""
