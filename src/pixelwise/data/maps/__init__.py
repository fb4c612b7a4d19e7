"""Maps: where a raster lies in the world, and what vector files say of it.

Comes in: GeoTIFF tags, coordinate reference systems, GeoJSON. Goes out: grids, and features in pixels. Knows nothing of classes
or parts.
"""
