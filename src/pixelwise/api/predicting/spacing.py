"""Compare the pixel spacing of images with that of the training, and resample them on request."""

from __future__ import annotations

from collections.abc import Sequence

from pixelwise.imageio.resampling import ResampledSource, factors_to
from pixelwise.imageio.sources import Source
from pixelwise.types import ModelSpec

# Differences beyond this factor are reported, and smaller ones than the other are not worth resampling.
_REPORTED = 1.5
_RESAMPLED = 1.05


def resampled(source: Source, spec: ModelSpec) -> ResampledSource | None:
    """Return the source at the spacing of the training; None if it has about that spacing, or if one of them is unknown."""
    factors = _factors(source, spec)
    return ResampledSource(source, factors) if factors and _furthest(factors) > _RESAMPLED else None


def spacing_notice(source: Source, spec: ModelSpec, resample: bool) -> str | None:
    """Return what is to be said about the spacing of a source."""
    factors = _factors(source, spec)
    if factors is None:
        text = f"{source.path}: not resampled, since the spacing of its pixels or of the training is unknown"
        return text if resample else None
    if resample or _furthest(factors) <= _REPORTED:
        return None
    assert spec.trained_spacing is not None
    trained, unit = spec.trained_spacing, spec.trained_unit
    found = tuple(size / factor for size, factor in zip(trained, factors[-len(trained) :], strict=True))
    return (
        f"{source.path}: expected pixels of about {_text(trained)} {unit}, as in training, found {_text(found)} {unit}. Objects"
        " have another size in pixels, so the mask may be poor. Predict at the spacing of the training with"
        " --set predict.resample=true."
    )


def _factors(source: Source, spec: ModelSpec) -> tuple[float, ...] | None:
    if spec.trained_spacing is None:
        return None
    return factors_to(source.grid, source.shape, spec.trained_spacing, spec.trained_unit)


def _furthest(factors: Sequence[float]) -> float:
    return max(max(factor, 1 / factor) for factor in factors)


def _text(spacing: Sequence[float]) -> str:
    return " × ".join(f"{size:.3g}" for size in spacing)
