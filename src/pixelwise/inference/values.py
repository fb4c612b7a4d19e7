"""Raise for images of another kind than those of the training, and for outputs that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, wrong_bands
from pixelwise.types import ModelSpec


def require_image(image: NDArray[Any], valid: NDArray[np.bool_] | None, spec: ModelSpec, where: str) -> None:
    """Raise unless an image (C, *S) and its valid pixels (*S) have the axes, bands and kind of values of the model.

    Raises:
        DataError: they do not.
    """
    axes = ("depth", "height", "width")[-spec.dimensions :]
    if image.ndim != len(axes) + 1 or image.size == 0:
        raise DataError(
            where,
            expected=f"an image (bands, {', '.join(axes)}) with at least one pixel",
            found=f"shape {image.shape}",
            do="Reorder the axes, or leave the image out.",
        )
    if spec.neighbours and image.shape[0] * (2 * spec.neighbours + 1) == spec.channels:
        raise DataError(
            where,
            expected=f"a volume, since the model sees each slice with {spec.neighbours} on either side",
            found="an image",
            do="Predict the file or the folder of the whole volume.",
        )
    if image.shape[0] != spec.channels:
        raise wrong_bands(where, spec.channels, image.shape[0])
    if valid is not None and valid.shape != image.shape[1:]:
        raise DataError(
            where,
            expected=f"a validity mask of shape {image.shape[1:]}",
            found=str(valid.shape),
            do="Use a mask with the size of the image.",
        )
    _require_values(image, valid, spec, where)


def _require_values(image: NDArray[Any], valid: NDArray[np.bool_] | None, spec: ModelSpec, where: str) -> None:
    """Raise if the pixel values differ in kind from those that the model was trained on.

    Raises:
        DataError: another number of bits, NaN or infinity.
    """
    trained = None if spec.dtype is None else np.dtype(spec.dtype)
    if trained is not None and {_bits(image.dtype), _bits(trained)} == {8, 16}:
        raise DataError(
            where,
            expected=f"{_bits(trained)}-bit values, as in training ({trained})",
            found=f"{_bits(image.dtype)}-bit values ({image.dtype})",
            do="Use images of the kind that the model was trained on.",
        )
    if image.dtype.kind != "f":
        return
    values = image if valid is None else image[:, valid]
    finite = np.isfinite(values)
    if not finite.all():
        count = int(np.count_nonzero(~finite.all(axis=0)))
        raise DataError(
            where,
            expected="finite values",
            found=f"NaN or infinity in {count} pixel{'s' if count != 1 else ''}",
            do="Replace these values, mark the pixels as nodata, or leave the image out.",
        )


def require_range(image: NDArray[Any], valid: NDArray[np.bool_] | None, spec: ModelSpec, where: str) -> None:
    """Raise if the values of a whole image are floats 0…1, and the model was trained on larger integers."""
    trained = None if spec.dtype is None else np.dtype(spec.dtype)
    integers = trained is not None and trained.kind in "ui"
    if image.dtype.kind != "f" or not (integers and spec.typical_range is not None and spec.typical_range[1] > 1):
        return
    values = image if valid is None else image[:, valid]
    # Zeros mean the same on either scale.
    if values.size and values.min() >= 0 and 0 < values.max() <= 1:
        top = 2 ** _bits(trained) - 1 if trained is not None else 255
        raise DataError(
            where,
            expected=f"values as in training ({trained}, up to about {spec.typical_range[1]:g})",
            found="floats between 0 and 1",
            do=f"Undo the scaling first, e.g. (image * {top}).round().astype('{trained}').",
        )


def _bits(dtype: np.dtype[Any]) -> int:
    """Return the bits of integers, 0 for floats."""
    return 8 * dtype.itemsize if dtype.kind in "ui" else 0


def require_finite_output(values: NDArray[np.float32], where: str) -> None:
    """Raise if logits or probabilities are not finite."""
    # NaN is passed on by `min` and `max`.
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise DataError(
            where,
            expected="values from which the model computes finite numbers",
            found="NaN or infinity in its output",
            do="Replace extreme values (such as a nodata value of -1e308), or train the model again.",
        )
