"""Segmentation masks people can trust and measure."""
