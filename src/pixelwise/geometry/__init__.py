"""Contours and run lengths of masks."""
