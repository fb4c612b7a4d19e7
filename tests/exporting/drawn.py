"""Models and images for the tests of exports."""

from pathlib import Path

import numpy as np
import torch

from pixelwise.labels import Labels
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import save_model
from pixelwise.types import ModelSpec


def save_network(folder: Path, channels: int = 3, dtype: str = "uint8", **spec) -> Path:
    """Write a small U-Net with random weights for images of a pixel type."""
    torch.manual_seed(channels)
    top = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[dtype]
    arguments = {"in_channels": channels, "num_classes": 3, "features": [4, 8]}
    arguments |= {"mean": [top / 2] * channels, "std": [top / 4] * channels}
    labels = Labels(("ground", "water", 'ro"of'))
    spec = {"dtype": dtype, "typical_range": (0.0, top), **spec}
    card = ModelCard({"name": "unet", "arguments": arguments}, ModelSpec(labels, channels, **spec))
    save_model(folder, build_model("unet", **arguments), card)
    return folder


def draw(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0):
    """Return an array of random pixel values."""
    values = np.random.default_rng(seed).random(shape)
    return (values * {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]).astype(dtype)
