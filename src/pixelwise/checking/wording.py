"""From what was seen to a finding: which files are named, how many there are, which images show it.

Comes in: a `Survey`, some of its `Seen`s, and words. Goes out: a `Finding`. Knows nothing of what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from pixelwise.checking.findings import EXAMPLES, SHOWN, Finding
from pixelwise.checking.inspection import Seen
from pixelwise.checking.survey import Survey

Twins = tuple[Seen, Seen]
_GROUPS = "name the groups by data.group (a regular expression, or a .csv table with the columns image and group)"


def tell(
    survey: Survey,
    kind: str,
    severity: str,
    seen: Sequence[Seen],
    what: str,
    why: str,
    fix: str,
    *,
    of: int | None = None,
    masks: bool = False,
) -> Finding:
    """Make a finding about images (or their masks, whose files then are named); `of` all that could be read, if not said."""
    where = tuple(name_mask(survey, one) if masks else name_image(survey, one) for one in seen[:SHOWN])
    examples = tuple(one.example for one in seen[:EXAMPLES])
    return Finding(kind, severity, what, where, len(seen), len(survey.good) if of is None else of, why, fix, examples)


def tell_pairs(
    survey: Survey,
    kind: str,
    severity: str,
    twins: Sequence[Twins],
    what: str,
    why: str,
    fix: str,
    *,
    count: int | None = None,
    of: int = 0,
    sign: str = "≈",
) -> Finding:
    """Make a finding about images that belong together two by two; `count` pairs, if not said otherwise."""
    where = tuple(f"{name_image(survey, one)} {sign} {name_image(survey, two)}" for one, two in twins[:SHOWN])
    examples = tuple(one.example for one in chain.from_iterable(twins[: EXAMPLES // 2]))
    many = len(twins) if count is None else count
    return Finding(kind, severity, what, where, many, of, why, fix, examples, paired=True)


def name_image(survey: Survey, one: Seen) -> str:
    """Name an image's file; where it is a slice or a piece of one, with its own name."""
    record = survey.record(one)
    whole = record.plane is None and record.window is None
    return str(record.image) if whole else f"{record.image} ({record.id})"


def name_mask(survey: Survey, one: Seen) -> str:
    """Name a mask's file; where one file holds those of many images, with the image."""
    record = survey.record(one)
    whole = record.source is None and record.plane is None
    return str(record.mask) if whole else f"{record.mask} ({record.id})"


def anew(survey: Survey, splits: Iterable[str]) -> str:
    """Give the options that divide all images anew; nothing where none of these parts is named by folders or lists."""
    given = survey.splits.description.get("split", {}).get("given") or ()
    if set(given).isdisjoint(splits):
        return ""
    # What is divided anew has a test part only where one is asked for.
    return "--set data.split.anew=true" + (" --set data.split.test=0.2" if survey.splits.test is not None else "")


def in_groups(survey: Survey, twins: Iterable[Twins]) -> str:
    """Say how images that belong together come into one part: by groups, and by dividing anew what was divided already."""
    options = anew(survey, {one.split for pair in twins for one in pair})
    return f"{_GROUPS}, and divide all images anew: {options}" if options else _GROUPS


def by_split(seen: Iterable[Seen]) -> str:
    """Say "2 in train and 1 in val"."""
    counts: dict[str, int] = {}
    for one in seen:
        counts[one.split] = counts.get(one.split, 0) + 1
    said = [f"{count} in {split}" for split, count in counts.items()]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
