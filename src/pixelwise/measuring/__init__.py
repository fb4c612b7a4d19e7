"""Physical sizes of regions in masks: areas, volumes, perimeters and lengths, with units, provenance and intervals."""
