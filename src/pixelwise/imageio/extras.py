"""Import optional packages when a file needs them, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from typing import Any

from pixelwise.errors import ImageError


def need(module: str, extra: str, where: object) -> Any:
    """Import a module of one of pixelwise's extras.

    Args:
        module: "nibabel", "rasterio.crs", …
        extra: the extra that installs it: "volumes", "geo".
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
            expected=f"the package {name} for this file",
            found="it is not installed",
            do=f"Run: pip install 'pixelwise[{extra}]'.",
        ) from error
