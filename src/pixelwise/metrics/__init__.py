"""Metrics on integer masks and probabilities, with bootstrap intervals. The package does not use torch."""
