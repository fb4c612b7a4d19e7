"""Packages that only some files need: imported when such a file is met, and asked for by name where they are missing.

Comes in: the name of a module. Goes out: the module. Knows nothing of what it is used for.
"""

from __future__ import annotations

import importlib
from typing import Any

from pixelwise.errors import ImageError


def need(module: str, extra: str, where: object) -> Any:
    """Import a module of one of pixelwise's extras.

    Args:
        module: "nibabel", "rasterio.crs", …
        extra: the extra that brings it: "volumes", "geo".
        where: the file that needs it, for the message.

    Raises:
        ImageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImageError(
            where,
            expected=f"the package {name}, which this file is read with",
            found="it is not installed",
            do=f"Say: pip install 'pixelwise[{extra}]'.",
        ) from error
