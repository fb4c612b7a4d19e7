"""Metadata for QGIS Deepness, in the form that its `ModelBase` reads (version 0.6): JSON values as strings.

Deepness divides pixel values by 255, subtracts `standardization_mean` and divides by `standardization_std`. With 0 and 1/255 the
model gets raw values, as it expects. It reads the size of tiles from the input, or from `tile_size`; its documentation
calls the same entry `tiles_size`.
"""

from __future__ import annotations

import json

from pixelwise.types import ModelSpec

_TILE = 512


def deepness_metadata(spec: ModelSpec, resolution: float | None = None) -> dict[str, str]:
    """Return the metadata for QGIS Deepness.

    Args:
        spec: of the model.
        resolution: centimetres per pixel of the training images; None if unknown.
    """
    tile = max(spec.tile or (_TILE,))
    tile += -tile % spec.stride
    values = {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(spec.labels.names)),
        "resolution": resolution,
        "tile_size": tile,
        "tiles_size": tile,
        "tiles_overlap": round(100 * spec.overlap),
        # Without a threshold, the class is the one with the largest value.
        "seg_thresh": 0.0,
        "standardization_mean": [0.0] * spec.channels,
        "standardization_std": [1 / 255] * spec.channels,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items() if value is not None}
