"""Write the report of an evaluation as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.labels import Labels
from pixelwise.reporting import confusions, gallery, run_sections, scores
from pixelwise.reporting.calibration import calibration
from pixelwise.reporting.rendering import render_page
from pixelwise.reporting.results import Results
from pixelwise.reporting.runfolder import RunFolder, read_run
from pixelwise.reporting.thumbnails import Fetch
from pixelwise.storage import write_atomic


def write_report(
    path: str | Path,
    plain: Mapping[str, Any],
    *,
    labels: Labels,
    fetch: Fetch | None = None,
    run: str | Path | None = None,
    title: str | None = None,
    environment: Mapping[str, Any] | None = None,
    commands: Sequence[str] | None = None,
) -> None:
    """Write the report of an evaluation as one HTML file.

    Args:
        path: the HTML file, written atomically.
        plain: the plain form of an `Evaluation`, with "model", "data", "split" and "calibration" where known.
        labels: names and colours of the classes.
        fetch: returns (image (C, *S), annotated mask (*S), predicted mask (*S)) for an image id; called once for each
            image shown.
        run: run folder; without one the report has no sections on training, data and configuration.
        title: page title; the name of the model by default.
        environment: versions and hardware by name.
        commands: the commands that reproduce the results.

    Raises:
        ResourceError: the file cannot be written.
    """
    results = Results.from_dict(plain)
    run_folder = RunFolder() if run is None else read_run(Path(run))
    sections = [
        scores.by_class(results),
        *gallery.image_sections(results, labels, fetch),
        confusions.confusion(results),
        confusions.by_size(results),
        confusions.by_distance(results),
        calibration(results, run_folder.calibration or results.calibration),
        scores.all_scores(results),
        run_sections.training(run_folder),
        run_sections.data(run_folder, labels.names),
        run_sections.configuration(run_folder),
        run_sections.repeat(environment, commands),
        scores.definitions(results),
    ]
    title = title or Path((results.file.model or "").rstrip("/\\")).name or "Evaluation"
    html = render_page("report.html", title, sections, results=results, key_figures=scores.key_figures(results))
    write_atomic(Path(path), html)
