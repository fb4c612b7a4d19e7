"""Names of the bands of rasters, by which bands in another order are recognised.

GDAL stores the description of each band as an item of the XML in the tag GDAL_METADATA (42112).
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelwise.errors import ImageError

_METADATA = 42112
_ITEM = re.compile(r"<Item\b([^<>]*)>([^<>]*)</Item>")
_SAMPLE = re.compile(r'\bsample="(\d+)"')


def read_band_names(tags: Any, samples: int) -> tuple[str, ...]:
    """Read the names of the samples of a TIFF page; () unless each has a name of its own.

    Args:
        tags: by code, with a `value` each, as in tifffile.
        samples: samples per pixel, including alpha.
    """
    text = tags[_METADATA].value if _METADATA in tags else ""
    names: dict[int, str] = {}
    for attributes, content in _ITEM.findall(text if isinstance(text, str) else ""):
        sample = _SAMPLE.search(attributes)
        if sample and 'role="description"' in attributes:
            names[int(sample[1])] = html.unescape(html.unescape(content)).strip()  # GDAL escapes twice
    return distinct([names.get(index, "") for index in range(samples)])


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names if all bands have one and no two are equal, ignoring case; otherwise ()."""
    folded = {name.casefold() for name in names}
    return tuple(names) if len(folded) == len(names) and "" not in folded else ()


def require_band_order(path: Path | str, found: Sequence[str], expected: Sequence[str], where: str) -> None:
    """Raise if bands have the expected names in another order.

    Args:
        path: of the image.
        found: its names; () if they are unknown.
        expected: the names in the right order; () if they are unknown.
        where: what has this order, such as "in training".

    Raises:
        ImageError: the same names in another order.
    """
    names, wanted = ([name.casefold() for name in each] for each in (found, expected))
    if names == wanted or sorted(names) != sorted(wanted):
        return
    bands = " ".join(f"-b {names.index(name) + 1}" for name in wanted)
    raise ImageError(
        path,
        expected=f"the bands {', '.join(expected)}, in this order, as {where}",
        found=", ".join(found),
        do=f"Reorder them: gdal_translate {bands} {Path(path).name} reordered.tif",
    )


def other_names(found: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether both are known and name different bands."""
    names, wanted = ({name.casefold() for name in each} for each in (found, expected))
    return bool(names and wanted) and names != wanted
