"""Say what is wrong with a data set, and the fix, before anybody waits for a training that cannot work.

Comes in: `DataSplits`. Goes out: `Finding`s, the worst first. Knows nothing of models, training or printing.

    findings.py     Finding: kind, severity, what, where, count, of, why, fix, examples
    look.py         one look at one image and its mask: a small Seen
    survey.py       all looks, in parallel: a Survey
    files.py, images.py, masks.py, shifts.py, classes.py, leakage.py, neighbours.py, sizes.py
                    the checks, by family: each a function from a Survey to findings

Every file is decoded once; what was seen of it is kept as a few numbers. A new check is one function, added to the
`CHECKS` of its family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pixelwise.checking import adjacent_images, classes, files, images, leakage, masks, shifts, sizes
from pixelwise.checking.findings import SEVERITIES, Finding
from pixelwise.checking.inspection import Seen
from pixelwise.checking.survey import Progress, Survey, take_survey
from pixelwise.datasets.dataset import DataSplits

__all__ = ["CHECKS", "SEVERITIES", "Finding", "Seen", "Survey", "check", "judge", "take_survey"]

Check = Callable[[Survey], Iterable[Finding]]
CHECKS: tuple[Check, ...] = tuple(
    one for family in (files, images, masks, shifts, classes, leakage, adjacent_images, sizes) for one in family.CHECKS
)


def check(
    splits: DataSplits, progress: Progress | None = None, *, skip_bad: bool = True, workers: int | None = None
) -> list[Finding]:
    """Decode every file once and report all that training would stumble over: `judge` of `take_survey`.

    To have every bad file reported, and not only the first, open the data set with `skip_bad` and say here whether
    training will do so too.

    Args:
        splits: an opened data set.
        progress: is called with (done, total).
        skip_bad: False where training will not leave files out: what opening left out then is an error.
        workers: processes; 0 looks in this one; None: as many as there are cores, or none for few images.

    Returns:
        Findings: errors, then warnings, then notices.
    """
    return judge(take_survey(splits, progress, skip_bad=skip_bad, workers=workers))


def judge(survey: Survey) -> list[Finding]:
    """Make every finding from a survey, without opening a file again: errors, then warnings, then notices."""
    findings = [finding for one in CHECKS for finding in one(survey)]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
