"""Drawn road scenes and other synthetic data sets."""
