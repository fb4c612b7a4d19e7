"""Compare the names of an image's bands with those of the training images."""

from __future__ import annotations

from pixelwise.imageio.band_names import other_names, require_band_order
from pixelwise.imageio.sources import Source
from pixelwise.types import ModelSpec


def require_bands(source: Source, spec: ModelSpec) -> None:
    """Raise if a source has the bands of the training in another order.

    Raises:
        ImageError: it has.
    """
    require_band_order(source.path, getattr(source, "names", ()), spec.trained_bands, "in training")


def bands_notice(source: Source, spec: ModelSpec) -> str | None:
    """Return what is to be said about bands with other names."""
    names: tuple[str, ...] = getattr(source, "names", ())
    if not other_names(names, spec.trained_bands):
        return None
    return (
        f"{source.path}: its bands are named {', '.join(names)}, those of the training {', '.join(spec.trained_bands)}. If they"
        " are other bands, the mask is wrong."
    )
