"""`Finding`, the result of a check, and the functions that make findings from inspected images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Survey

SEVERITIES = ("error", "warning", "notice")
SHOWN = 5
EXAMPLES = 12

Example = tuple[str, int]
Pair = tuple[Inspection, Inspection]
_GROUPS = "name the groups by data.group (a regular expression, or a .csv table with the columns image and group)"


@dataclass(frozen=True)
class Finding:
    """Describe one problem or property of a data set.

    Args:
        kind: a stable key such as "near-duplicates-across-parts", for scripts, anchors and links.
        severity: "error" (training would fail or learn nothing useful), "warning" (scores or results would suffer) or "notice"
            (worth knowing, such as a decision made automatically).
        what: the finding in one line, with numbers.
        where: up to five files or places.
        count: number of occurrences.
        of: total that `count` refers to; 0 if there is none.
        why: why it matters.
        fix: what to do about it: a command or a line of YAML where possible.
        examples: up to twelve affected images as (split, index into the `Dataset` of that split); may be empty. Reading
            one raises if its mask is invalid.
        paired: whether consecutive examples form pairs, such as near-duplicates.
    """

    kind: str
    severity: str
    what: str
    where: tuple[str, ...]
    count: int
    of: int
    why: str
    fix: str
    examples: tuple[Example, ...] = ()
    paired: bool = False

    def unlisted(self, shown: int = SHOWN) -> int:
        """Return the number of places that are not listed if the first `shown` of `where` are."""
        return more(self.where, self.count, shown)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as for JSON, keys in the order of the fields."""
        plain = dict(self.__dict__)
        return plain | {"where": list(self.where), "examples": [list(example) for example in self.examples]}


def more(where: Sequence[str], count: int, shown: int = SHOWN) -> int:
    """Return the number of unlisted places if `shown` of `where` are listed; a short `where` holds all places."""
    return max((count if len(where) >= SHOWN else len(where)) - min(shown, len(where)), 0)


def plural(count: int, one: str, many: str) -> str:
    """Return "1 mask", "3 masks"."""
    return f"{count} {one if count == 1 else many}"


def join_names(names: Sequence[str], most: int = SHOWN) -> str:
    """Return "a, b and c", or the first `most` names and "3 more"."""
    shown, left = list(names[:most]), len(names) - most
    if left > 0:
        return f"{', '.join(shown)} and {left} more"
    if len(shown) < 2:
        return shown[0] if shown else "none"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def count_by_split(images: Iterable[Inspection]) -> str:
    """Return "2 in train and 1 in val"."""
    counts = Counter(image.split for image in images)
    return join_names([f"{count} in {split}" for split, count in counts.items()])


def image_finding(
    survey: Survey,
    kind: str,
    severity: str,
    images: Sequence[Inspection],
    what: str,
    why: str,
    fix: str,
    *,
    of: int | None = None,
    masks: bool = False,
) -> Finding:
    """Make a finding about images, or about their masks; `of` defaults to the number of usable images."""
    name = survey.mask_name if masks else survey.image_name
    where = tuple(name(image) for image in images[:SHOWN])
    examples = tuple(image.example for image in images[:EXAMPLES])
    total = len(survey.usable) if of is None else of
    return Finding(kind, severity, what, where, len(images), total, why, fix, examples)


def pair_finding(
    survey: Survey,
    kind: str,
    severity: str,
    pairs: Sequence[Pair],
    what: str,
    why: str,
    fix: str,
    *,
    count: int | None = None,
    of: int = 0,
    sign: str = "≈",
    notes: Sequence[str] = (),
) -> Finding:
    """Make a finding about pairs of images, with a note on each pair; `count` defaults to the number of pairs."""
    where = tuple(
        f"{survey.image_name(a)} {sign} {survey.image_name(b)}" + (f" ({note})" if note else "")
        for (a, b), note in zip_longest(pairs[:SHOWN], notes[:SHOWN])
    )
    examples = tuple(image.example for image in chain.from_iterable(pairs[: EXAMPLES // 2]))
    total = len(pairs) if count is None else count
    return Finding(kind, severity, what, where, total, of, why, fix, examples, paired=True)


def grouping_advice(survey: Survey, pairs: Iterable[Pair]) -> str:
    """Describe how to keep related images in one split: by groups, and by dividing again if splits are given."""
    options = survey.redivide_options({image.split for pair in pairs for image in pair})
    return f"{_GROUPS}, and divide all images again: {options}" if options else _GROUPS
