"""Benchmarks of pixelwise and other libraries."""
