"""Colours of masks: looked up among those of the classes; what is none of them is told, with its share of the pixels.

Comes in: the values of a mask file, and the `Labels`. Goes out: class indices, or an error that says which colours nobody
named. Knows nothing of rules, folders or tables of colours.

A colour is never taken for the nearest one: along a soft edge between two classes lies the colour of a third.
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
_SOFT = 24  # of 255 per band: what JPEG, or the faint end of a soft edge, does to a flat colour
_LOOKED_AT = 4096


def look_up(path: Path, raw: RawMask, labels: Labels, ignored: Sequence[Colour] = ()) -> NDArray[Any]:
    """Look every pixel's colour up among the labels' colours.

    Args:
        path: the mask's file, for messages.
        raw: its values; those of a palette stand for its colours, grey values for grey colours.
        labels: the classes and their colours.
        ignored: colours whose pixels count in nothing.

    Returns:
        Class indices (H, W), or `labels.ignore_index`.

    Raises:
        MaskError: a colour that is no class's, or one that stands for two.

    """
    known = {code(colour): index for index, colour in enumerate(labels.colours)}
    if len(known) < labels.num_classes or any(code(colour) in known for colour in ignored):
        raise MaskError(
            path,
            expected="a colour of its own for every class",
            found="one colour that stands for two",
            do="Correct the colours in labels.yaml.",
        )
    known |= dict.fromkeys(map(code, ignored), labels.ignore_index)
    codes = colour_codes(raw)
    table = np.array(sorted(known), np.int64)
    indices = np.array([known[int(each)] for each in table], labels.dtype)
    place = np.minimum(np.searchsorted(table, codes), len(table) - 1)
    odd = table[place] != codes
    if odd.any():
        raise _unknown(path, codes[odd], table, raw)
    return indices[place]


def colour_codes(raw: RawMask) -> NDArray[np.int64]:
    """Give red·65536 + green·256 + blue per pixel (H, W), -1 where a value is no colour; grey values are grey colours."""
    if raw.palette is not None:
        codes = np.array([code(colour) for colour in raw.palette] or [0], np.int64)
        return np.append(codes, -1)[np.minimum(raw.values.astype(np.int64), len(codes))]
    values = raw.values.astype(np.int64)
    if values.ndim == 2:
        values = values * (255 if raw.kind == "binary" else 1)
        return np.where((values >= 0) & (values < 256), values * 0x010101, -1)
    return values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]


def code(colour: Colour) -> int:
    """Give a colour as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unknown(path: Path, odd: NDArray[np.int64], known: NDArray[np.int64], raw: RawMask) -> MaskError:
    present, counts = np.unique(odd, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    present, counts = present[order], counts[order]
    size = raw.values.shape[0] * raw.values.shape[1]
    shown = [
        f"{_name(int(value))} in {n} pixel{'s' * (n != 1)} ({_share(n / size)})"
        for value, n in zip(present[:_SHOWN], counts[:_SHOWN].tolist(), strict=True)
    ]
    found = ", ".join(shown) + (f" and {len(present) - _SHOWN} more" if len(present) > _SHOWN else "")
    if len(present) > 1:
        found += f", in all {_share(odd.size / size)} of the pixels"
    furthest = _furthest(present[:_LOOKED_AT], known)
    if raw.values.ndim == 3 and not np.any(raw.values != raw.values[..., :1]):
        do = f"All three bands are equal: save one band, or {_KEY}={{0: 0, 255: 1}}', or {_KEY}={{threshold: 128}}'."
    elif furthest <= _SOFT:
        do = (
            f"All of them lie within {furthest} of the colour of a class, as where a mask was lossy (JPEG) once or has soft"
            " edges: export the masks again as PNG, drawn without smoothing."
        )
    elif len(present) > _MANY:
        do = "The edges look smoothed (anti-aliased) or the mask was lossy once: draw masks without smoothing."
    else:
        which = "that colour" if len(present) == 1 else "each colour"
        listed = ", ".join(f"[{v >> 16}, {v >> 8 & 255}, {v & 255}]" for v in present.tolist() if v >= 0)
        do = f"Give {which} to a class, or let it count in nothing: {_KEY}={{colours: true, ignored: [{listed}]}}'."
    return MaskError(path, expected="the colours of the classes", found=found, do=do)


def _name(value: int) -> str:
    return f"({value >> 16}, {value >> 8 & 255}, {value & 255})" if value >= 0 else "no colour"


def _share(share: float) -> str:
    """Say a share in per cent, never rounded to all or nothing."""
    if share >= 0.9995:
        return "100 %" if share == 1 else "over 99.9 %"
    return f"{100 * share:.3g} %" if share >= 0.001 else "under 0.1 %"


def _furthest(unknown: NDArray[np.int64], known: Iterable[int]) -> int:
    """Give the distance from the strangest colour to the known one nearest to it: the largest difference in a band."""
    if (unknown < 0).any():
        return 256
    bands = np.stack([unknown >> 16, unknown >> 8 & 255, unknown & 255], 1)
    nearest = np.full(len(bands), 256)
    for value in known:
        own = np.array([value >> 16, value >> 8 & 255, value & 255])
        nearest = np.minimum(nearest, np.abs(bands - own).max(1))
    return int(nearest.max())
