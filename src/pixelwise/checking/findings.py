"""What `pixelwise check` has to say: one `Finding` per thing that is the case, and the words that findings share.

Comes in: numbers and files, from a check. Goes out: a frozen `Finding`, or its plain form for JSON. Knows nothing of how
anything was found, nor of how it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SEVERITIES = ("error", "warning", "notice")
SHOWN = 5
EXAMPLES = 12

Example = tuple[str, int]


@dataclass(frozen=True)
class Finding:
    """Tell one thing about a data set.

    Args:
        kind: a stable short key, such as "near-duplicates-across-parts": for scripts, anchors and links; never translated.
        severity: "error" (training would stop or be worthless), "warning" (scores or results would suffer), "notice"
            (good to know; a decision that was taken).
        what: what is the case, in one line, with numbers.
        where: up to five files or places, as texts.
        count: how often it is the case.
        of: out of how many; 0 where that means nothing.
        why: why it matters.
        fix: what to do about it: a command, or a line of YAML, where there is one.
        examples: up to twelve images that show it, as (part, index into that part's `Dataset`): `DataSplits` of the
            survey reads them; where the mask is what is wrong, that raises. They can be empty.
        paired: whether examples belong together two by two (first and second, third and fourth, …), as twins do.
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

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form: what JSON holds, keys in the order of the fields."""
        plain = dict(self.__dict__)
        return plain | {"where": list(self.where), "examples": [list(example) for example in self.examples]}


def more(where: Sequence[str], count: int, shown: int = SHOWN) -> int:
    """Say how many places are left where `shown` of `where` are shown; it names all of `count` where it is short."""
    return max((count if len(where) >= SHOWN else len(where)) - min(shown, len(where)), 0)


def some(count: int, one: str, many: str) -> str:
    """Say "1 mask", "3 masks": the number, and the word for one or for many."""
    return f"{count} {one if count == 1 else many}"


def listed(names: Sequence[str], most: int = SHOWN) -> str:
    """Say "a, b and c", or the first `most` and "3 more"."""
    shown, left = list(names[:most]), len(names) - most
    if left > 0:
        return f"{', '.join(shown)} and {left} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"
