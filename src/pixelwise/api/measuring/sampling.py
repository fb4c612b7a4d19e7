"""Propose where to look on a map: points with the files to answer them.

Areas and accuracy are estimated from the answers by `api.measuring.areas`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.measuring.maps import (
    PredictedMap,
    left_out_notices,
    longitudes_and_latitudes,
    open_map,
    training_windows,
)
from pixelwise.api.measuring.sample_files import (
    CHIPS,
    GEOJSON,
    KML,
    PAGE,
    POINTS,
    RESULTS,
    SAMPLE,
    Design,
    has_answers,
    points_geojson,
    points_kml,
    points_table,
    unsure_word,
)
from pixelwise.api.measuring.scales import scale_rule
from pixelwise.errors import DataError, OutputExistsError, PixelwiseError, UsageError
from pixelwise.formats.reading import file_hash
from pixelwise.imageio.images import display_limits, fill_invalid
from pixelwise.imageio.sources import open_source
from pixelwise.measuring.grid_scale import size_unit
from pixelwise.measuring.sampling import (
    fewest_points,
    propose,
    tally_classes,
)
from pixelwise.measuring.scale import pixels
from pixelwise.reporting.overlay import write_png
from pixelwise.reporting.sampling_page import chip, chip_window, write_sampling_page
from pixelwise.storage import claim_folder, require_claimable, write_atomic, write_json
from pixelwise.tiles import Window

# Points around which the values are read that decide how the image is shown.
_LIMIT_POINTS = 100
_HALF = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)])


@dataclass(frozen=True, eq=False)
class ProposedSample:
    """A sample that was written to a folder.

    Args:
        folder: the folder.
        id: of the sample.
        points: number of points.
        files: names of what was written.
        strata: one dictionary per stratum: class, confidence in percent, pixels, area, points.
        unit: of the areas; `provenance`: where it comes from.
        notices: what was assumed or left out.
    """

    folder: Path
    id: str
    points: int
    files: tuple[str, ...]
    strata: tuple[Mapping[str, Any], ...]
    unit: str
    provenance: str
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        found = {name: getattr(self, name) for name in ("id", "points", "unit", "provenance")}
        lists = {name: list(getattr(self, name)) for name in ("files", "strata", "notices")}
        return {"folder": str(self.folder), **found, **lists}


def propose_sample(
    map: str | Path,
    *,
    size: int,
    out: str | Path,
    seed: int = 0,
    image: str | Path | None = None,
    spacing: str | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ProposedSample:
    """Draw points on a map, and write a page to answer on, with the points as CSV, GeoJSON and KML.

    Args:
        map: an output folder of `predict` with one image, a mask in one, or a mask of any program.
        size: number of points.
        out: a new folder.
        seed: random seed.
        image: the image that was predicted, for the page; by default the one that `predictions.json` names.
        spacing: distance between neighbouring pixels, such as "0.21mm"; takes precedence over that of the files.
        overwrite: replace an earlier sample in `out`; never answers.
        progress: called with what is being done.

    Raises:
        DataError: no map, or one without pixels to draw from.
        UsageError: too few points, or a volume.
        OutputExistsError: `out` holds files.
    """
    folder = Path(out)
    require_claimable(folder, overwrite, RESULTS, SAMPLE)
    if has_answers(folder / POINTS):
        do = "Choose another --out, or move the answers."
        raise OutputExistsError(folder / POINTS, expected="no answers to replace", found="some", do=do)
    found = open_map(map)
    excluded, notices = training_windows(found)
    scale = scale_rule(spacing)(found.grid, found.shape)
    progress("drawing points")
    try:
        sample = propose(found, scale, size, seed=seed, excluded=excluded)
    except ValueError as error:
        raise _no_sample(found, size, excluded) from error
    notices += left_out_notices(found, int(sample.excluded.sum()))
    source, why = _source(found, None if image is None else Path(image))
    degrees = longitudes_and_latitudes(found.grid, sample.positions.astype(np.float64))
    more = [*_strata_notices(sample.by_confidence), *([why] if why else [])]
    if degrees is None:
        more.append("no GeoJSON and KML, since the positions of the pixels on the Earth are unknown")
    unit = size_unit(scale, 2)[0]
    provenance = scale.reason or scale.provenance
    facts = (found.path.name, file_hash(found.path), found.labels, unit, provenance, sample)
    design = Design("", *facts, tuple(notices))
    design = replace(design, id=design.to_dict()["id"])
    claim_folder(folder, overwrite, RESULTS, SAMPLE)
    files = _write(folder, found, design, degrees, source, progress)
    strata = tuple(design.to_dict()["strata"])
    return ProposedSample(folder, design.id, len(sample.positions), files, strata, unit, provenance, (*notices, *more))


def _no_sample(found: PredictedMap, size: int, excluded: Sequence[Window]) -> PixelwiseError:
    """Return the error for a map of which no sample of this size can be drawn."""
    tally = tally_classes(found, pixels(2, "counted"), excluded)
    needed = fewest_points(tally)
    if needed == 0 and tally.excluded.any():
        do = "Predict another image, or keep a block of this one out of the training (data.split.block)."
        where = "the model was trained or validated on all of the map"
        return DataError(found.path, expected="pixels that the model was not trained on", found=where, do=do)
    if needed == 0:
        return DataError(found.path, expected="pixels with a class", found="none", do="Check the map.")
    return UsageError(
        "--sample",
        expected=f"{needed} points or more, 5 for each class of the map",
        found=str(size),
        do="Draw more points.",
    )


def _strata_notices(by_confidence: bool) -> list[str]:
    """Return what a user should know about the strata."""
    notices = []
    if not by_confidence:
        notices.append(
            "the strata are the classes of the map, since there are no confidences; intervals become about a fifth narrower with those "
            "of the model: pixelwise predict … --set predict.confidence=true"
        )
    return notices


def _source(found: PredictedMap, image: Path | None) -> tuple[Any, str | None]:
    """Return the image for the chips; or None, and why there are none."""
    path = image or found.source
    if path is None:
        return None, "no images around the points, since the image of the map is unknown"
    try:
        source = open_source(path)
    except DataError as error:
        if image is not None:
            raise
        return None, f"no images around the points: {error}"
    if tuple(source.shape) != tuple(found.shape):
        size, expected = ("×".join(map(str, each)) for each in (source.shape, found.shape))
        if image is not None:
            do = "Name the image that was predicted."
            raise DataError(path, expected=f"the size of the map, {expected}", found=size, do=do)
        return None, f"no images around the points, since {path} has {size} pixels and the map {expected}"
    return source, None


def _write(
    folder: Path,
    found: PredictedMap,
    design: Design,
    degrees: NDArray[np.float64] | None,
    source: Any,
    progress: Callable[[str], None],
) -> tuple[str, ...]:
    """Write the files of a sample, and return their names."""
    positions = design.sample.positions
    write_json(folder / SAMPLE, design.to_dict())
    world = (
        None if found.grid.crs is None or found.grid.affine is None else found.grid.to_world(positions.astype(float))
    )
    write_atomic(folder / POINTS, points_table(design, world, degrees))
    files = [SAMPLE, POINTS]
    corners = None
    if degrees is not None:
        write_atomic(folder / GEOJSON, points_geojson(design, degrees))
        files.append(GEOJSON)
        around = (positions[:, None].astype(float) + _HALF).reshape(-1, 2)
        corners = longitudes_and_latitudes(found.grid, around)
    if degrees is not None and corners is not None:
        write_atomic(folder / KML, points_kml(found.path.name, degrees, corners.reshape(-1, 4, 2)))
        files.append(KML)
    chips: dict[int, str] = {}
    if source is not None:
        chips = _write_chips(folder, source, positions, progress)
        files.append(CHIPS)
    points = [
        {"point": i + 1, "row": row, "column": column, "chip": chips.get(i), "place": _place(row, column, degrees, i)}
        for i, (row, column) in enumerate(positions.tolist())
    ]
    names = design.labels.names
    stretched = source is not None and source.dtype != np.uint8
    facts = (found.path.name, design.id, design.labels, points, unsure_word(names))
    write_sampling_page(folder / PAGE, *facts, stretched=stretched)
    return (*files, PAGE)


def _write_chips(
    folder: Path, source: Any, positions: NDArray[np.int64], progress: Callable[[str], None]
) -> dict[int, str]:
    """Write the image around each point, in the order of rows, so that each tile of the file is decoded about once."""
    (folder / CHIPS).mkdir(parents=True, exist_ok=True)
    limits = None if source.dtype == np.uint8 else _limits(source, positions)
    names: dict[int, str] = {}
    for count, i in enumerate(np.lexsort(positions.T[::-1]).tolist(), 1):
        at = positions[i].tolist()
        window = chip_window(source.shape, at)
        image, valid = source.read(window)
        names[i] = f"{CHIPS}/{i + 1:0{len(str(len(positions)))}}.png"
        write_png(folder / names[i], chip(fill_invalid(image, valid), window, at, limits))
        progress(f"images around the points: {count} of {len(positions)}")
    return names


def _limits(source: Any, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the values that are shown as black and white, from the valid pixels around some of the points."""
    some = positions[:: -(-len(positions) // _LIMIT_POINTS)]
    read = [source.read(chip_window(source.shape, at.tolist())) for at in some]
    valid = [image.reshape(len(image), -1) if mask is None else image[:, mask] for image, mask in read]
    return display_limits(np.concatenate(valid, axis=1))


def _place(row: int, column: int, degrees: NDArray[np.float64] | None, i: int) -> str:
    text = f"row {row}, column {column}"
    return text if degrees is None else f"{degrees[i, 1]:.6f}, {degrees[i, 0]:.6f} (latitude, longitude) · {text}"
