"""Find problems in a data set before training: `check` returns `Finding`s, the most severe first.

Every file is decoded once: `inspection` reduces an image and its mask to a few numbers, `survey` inspects all images in
parallel. The checks are functions from a `Survey` to findings, one module per subject; a new check is added to the
`CHECKS` of its module. Nothing here depends on models or training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pixelwise.checking import (
    adjacent_images,
    classes,
    files,
    images,
    masks,
    near_duplicates,
    nodata,
    shifts,
    sizes,
    spacings,
)
from pixelwise.checking.findings import SEVERITIES, Finding
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Progress, Survey, take_survey
from pixelwise.datasets.dataset import DataSplits

__all__ = [
    "CHECKS",
    "SEVERITIES",
    "Finding",
    "Inspection",
    "Survey",
    "by_severity",
    "check",
    "run_checks",
    "take_survey",
]

Check = Callable[[Survey], Iterable[Finding]]
_MODULES = (files, images, nodata, masks, shifts, classes, near_duplicates, adjacent_images, sizes, spacings)
CHECKS: tuple[Check, ...] = tuple(check for module in _MODULES for check in module.CHECKS)


def check(
    splits: DataSplits, progress: Progress | None = None, *, skip_bad: bool = True, workers: int | None = None
) -> list[Finding]:
    """Inspect every file once and run all checks.

    Args:
        splits: an opened data set; open it with `skip_bad` to have every bad file reported, and not only the first.
        progress: called with (done, total).
        skip_bad: whether training will leave out unusable files; otherwise they are errors.
        workers: number of processes; 0 for none; None for one per core, or none for few images.

    Returns:
        Findings: errors, then warnings, then notices.
    """
    return run_checks(take_survey(splits, progress, skip_bad=skip_bad, workers=workers))


def run_checks(survey: Survey) -> list[Finding]:
    """Run all checks on a survey, without reading files: errors, then warnings, then notices."""
    return by_severity(finding for check in CHECKS for finding in check(survey))


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity: errors, then warnings, then notices."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
