"""Pixel files, read and written with their grid."""
