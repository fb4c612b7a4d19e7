"""Metrics on integer masks and probabilities, with confidence intervals. The package does not use torch."""
