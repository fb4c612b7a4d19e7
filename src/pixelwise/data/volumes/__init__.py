"""Volumes: NIfTI files and DICOM series, by the slice.

Comes in: a file. Goes out: what its header says of its voxels, and slices. Knows nothing of pairs, classes or parts.
"""
