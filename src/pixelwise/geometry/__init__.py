"""Contours and run lengths of binary masks."""
