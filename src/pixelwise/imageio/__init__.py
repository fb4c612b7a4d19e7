"""Read and write pixel files together with their grid.

`images` and `masks` read PNG, JPEG, TIFF and WebP files (decoded in `raster` and `tiff`); `nifti`, `dicom` and `volumes` read
volumes as stacks of slices. `sources` opens anything that can be predicted, and `writing` writes predictions in the format and
geometry of their source.
"""
