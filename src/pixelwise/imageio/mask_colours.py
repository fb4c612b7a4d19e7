"""Convert the colours of a mask to class indices.

Colours are never matched to the nearest class: a soft edge between two classes can contain the colour of a third.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.imageio.images import RawMask
from pixelwise.labels import Colour, Labels

_KEY = "--set 'data.mask_values"
_SHOWN = 4
_MANY = 16
_SOFT = 24  # of 255 per band: how far JPEG or a soft edge changes a colour
_COMPARED = 4096  # most colours to compare with those of the classes


def look_up(path: Path, raw: RawMask, labels: Labels, ignored: Sequence[Colour] = ()) -> NDArray[Any]:
    """Convert the colour of every pixel to the index of its class.

    Args:
        path: the mask's file, for messages.
        raw: its values; palette indices and grey values are converted to colours.
        labels: the classes and their colours.
        ignored: colours of ignored pixels.

    Returns:
        Class indices (H, W), or `labels.ignore_index`.

    Raises:
        MaskError: an unknown colour, or two classes of one colour.
    """
    known = {code(colour): index for index, colour in enumerate(labels.colours)}
    if len(known) < labels.num_classes or any(code(colour) in known for colour in ignored):
        raise MaskError(
            path,
            expected="a different colour for every class",
            found="one colour for two",
            do="Correct the colours in labels.yaml.",
        )
    known |= dict.fromkeys(map(code, ignored), labels.ignore_index)
    codes = colour_codes(raw)
    table = np.array(sorted(known), np.int64)
    indices = np.array([known[int(each)] for each in table], labels.dtype)
    place = np.minimum(np.searchsorted(table, codes), len(table) - 1)
    unknown = table[place] != codes
    if unknown.any():
        raise _unknown(path, codes[unknown], table, raw, labels)
    return indices[place]


def colour_codes(raw: RawMask) -> NDArray[np.int64]:
    """Return red·65536 + green·256 + blue per pixel (H, W), or -1 for values that are not colours."""
    if raw.palette is not None:
        codes = np.array([code(colour) for colour in raw.palette] or [0], np.int64)
        return np.append(codes, -1)[np.minimum(raw.values.astype(np.int64), len(codes))]
    values = raw.values.astype(np.int64)
    if values.ndim == 2:
        values = values * (255 if raw.kind == "binary" else 1)
        return np.where((values >= 0) & (values < 256), values * 0x010101, -1)
    return values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]


def code(colour: Colour) -> int:
    """Return a colour as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unknown(path: Path, codes: NDArray[np.int64], known: NDArray[np.int64], raw: RawMask, labels: Labels) -> MaskError:
    present, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    present, counts = present[order], counts[order]
    size = raw.values.shape[0] * raw.values.shape[1]
    shown = [
        f"{_name(int(value))} in {n} pixel{'s' * (n != 1)} ({format_share(n / size)})"
        for value, n in zip(present[:_SHOWN], counts[:_SHOWN].tolist(), strict=True)
    ]
    found = ", ".join(shown) + (f" and {len(present) - _SHOWN} more" if len(present) > _SHOWN else "")
    if len(present) > 1:
        found += f", in all {format_share(codes.size / size)} of the pixels"
    furthest = _furthest(present[:_COMPARED], known)
    single = raw.single_band()
    if single is not raw:
        values = np.unique(single.values).tolist()
        ids = dict(zip((0, 255), sorted(labels.ids), strict=False)) if values == [0, 255] else dict.fromkeys(values)
        pairs = ", ".join(f"{value}: {value if id_ is None else id_}" for value, id_ in ids.items())
        do = f"All three bands are equal. To read them as class ids: {_KEY}={{{pairs}}}'; or as dark and bright"
        do += f" pixels: {_KEY}={{threshold: 128}}'."
    elif furthest <= _SOFT:
        do = (
            f"All of them are within {furthest} of the colour of a class, as in masks that were once lossy (JPEG) or have soft"
            " edges: export the masks again as PNG, without smoothing."
        )
    elif len(present) > _MANY:
        do = "The edges look smoothed (anti-aliased), or the mask was once lossy: export masks without smoothing."
    else:
        which = "that colour" if len(present) == 1 else "each colour"
        listed = ", ".join(f"[{v >> 16}, {v >> 8 & 255}, {v & 255}]" for v in present.tolist() if v >= 0)
        do = f"Assign {which} to a class, or ignore it: {_KEY}={{colours: true, ignored: [{listed}]}}'."
    return MaskError(path, expected="the colours of the classes", found=found, do=do)


def _name(value: int) -> str:
    return f"({value >> 16}, {value >> 8 & 255}, {value & 255})" if value >= 0 else "no colour"


def format_share(share: float) -> str:
    """Format a share in per cent, never rounded to 0 or 100 %."""
    if share >= 0.9995:
        return "100 %" if share == 1 else "over 99.9 %"
    return f"{100 * share:.3g} %" if share >= 0.001 else "under 0.1 %"


def _furthest(unknown: NDArray[np.int64], known: Iterable[int]) -> int:
    """Return the largest distance of an unknown colour from its nearest known one, as the difference in one band."""
    if (unknown < 0).any():
        return 256
    bands = np.stack([unknown >> 16, unknown >> 8 & 255, unknown & 255], 1)
    nearest = np.full(len(bands), 256)
    for value in known:
        colour = np.array([value >> 16, value >> 8 & 255, value & 255])
        nearest = np.minimum(nearest, np.abs(bands - colour).max(1))
    return int(nearest.max())
