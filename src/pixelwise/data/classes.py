"""Find the classes of a data set: named by its owner, else listed from the ids that its masks hold.

Comes in: the `data` section, the folders, the records. Goes out: `Labels`, and the rule by which mask values become ids.
Knows nothing of pictures, parts or tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.config import DataConfig, read_yaml
from pixelwise.data.masks import MaskRule, read_ids
from pixelwise.data.records import Record
from pixelwise.errors import DataError, LabelsError
from pixelwise.labels import Labels

_MOST_LISTED_IDS = 256
_MOST_LOOKED_AT = 64


def find_labels(
    config: DataConfig,
    root: Path,
    base: Path,
    records: Sequence[Record],
    rule: MaskRule,
    known: Labels | None = None,
) -> tuple[Labels, MaskRule, str, tuple[str, ...]]:
    """Find the classes: what the configuration says, else labels.yaml, else the format (`known`), else the ids in the masks.

    Returns:
        The labels, the rule (made exact where the masks were listed), where they came from, and notices.

    Raises:
        LabelsError: a missing or wrong description, classes of the annotations that it does not name, or masks that hold
            too many ids to be classes.

    """
    labels, rule, source, told = _find(config, root, base, records, rule, known)
    _require_names(labels, records, source)
    return labels, rule, source, told


def _require_names(labels: Labels, records: Sequence[Record], source: str) -> None:
    """Hold the names in annotations against the labels: shapes find their class by name."""
    lost: dict[str, int] = {}
    for record in records:
        for name in record.source.names - set(labels.names) if record.source is not None else ():
            lost[name] = lost.get(name, 0) + 1
    if lost:
        names = sorted(lost, key=lambda name: (-lost[name], name))
        found = ", ".join(f"{name!r} in {lost[name]} picture{'s' * (lost[name] != 1)}" for name in names[:4])
        raise LabelsError(
            source,
            expected="every class of the annotations",
            found=found + (f" and {len(names) - 4} more" if len(names) > 4 else ""),
            do=f"Add them, or let their pixels count in nothing: data.ignored: [{', '.join(names[:4])}].",
        )


def _find(
    config: DataConfig, root: Path, base: Path, records: Sequence[Record], rule: MaskRule, known: Labels | None
) -> tuple[Labels, MaskRule, str, tuple[str, ...]]:
    if config.labels is not None and not isinstance(config.labels, str):
        labels = Labels.from_dict(config.labels, "data.labels")
        return labels, _settled(labels, _named(rule, config, config.labels), records), "data.labels", ()
    name = config.labels or "labels.yaml"
    path = next((folder / name for folder in (base, root) if (folder / name).is_file()), None)
    if path is not None:
        plain, _ = read_yaml(path)
        labels = Labels.from_dict(plain, str(path))
        return labels, _settled(labels, _named(rule, config, plain), records), str(path), ()
    if config.labels is not None:
        raise LabelsError(
            "data.labels", expected=f"the file {name}", found=f"none in {base} or {root}", do="Check the path."
        )
    if known is not None:
        return known, rule, "the annotations", ()
    if rule.colours:
        raise LabelsError(
            root,
            expected="names and colours of the classes, since the masks are coloured",
            found="no labels.yaml",
            do="Write a labels.yaml with names: […] and colours: [[r, g, b], …].",
        )
    labels, rule, told = _name_ids(_list_ids(records, rule), rule, root)
    return labels, rule, "listed from the masks", told


def _named(rule: MaskRule, config: DataConfig, plain: Any) -> MaskRule:
    """Take 255 as what the description of the classes calls it: ignored where it says so, whatever the masks look like."""
    given = plain.get("ignore_index") if isinstance(plain, Mapping) else None
    ignored = 255 in (given if isinstance(given, list | tuple) else (given,))
    return replace(rule, binary=False) if ignored and config.mask_values is None else rule


def _settled(labels: Labels, rule: MaskRule, records: Sequence[Record]) -> MaskRule:
    """Settle for all masks together whether 255 can be the second of two classes: not where masks hold the id itself.

    A mask of 0 and 255 alone cannot tell; some of the others can. At most 64 are read.
    """
    stored = rule.binary and rule.threshold is None and rule.values is None and not rule.colours
    if not stored or labels.num_classes != 2 or 255 in labels.ids:
        return rule
    masks = [record.mask for record in records if record.mask is not None and record.source is None]
    some = masks[:: max(len(masks) // _MOST_LOOKED_AT, 1)][:_MOST_LOOKED_AT]
    as_stored = replace(rule, binary=False)
    for path in some:
        try:
            ids = read_ids(path, as_stored)[0]
        except DataError:
            continue  # told where the mask is used
        if (ids == max(labels.ids)).any():
            return as_stored
    return rule


def _list_ids(records: Iterable[Record], rule: MaskRule) -> set[int]:
    """List the ids that the masks hold, after the rule for their values."""
    if rule.threshold is not None:
        return {0, 1}
    if rule.values is not None:
        return set(rule.values.values())
    ids: set[int] = set()
    broken: DataError | None = None
    as_stored = replace(rule, binary=False)  # what 255 means is seen from all masks together, not from one
    for record in records:
        if record.mask is None:
            continue
        try:
            ids.update(np.unique(read_ids(record.mask, as_stored)[0]).tolist())
        except DataError as error:  # told where the mask is used
            broken = broken or error
        if len(ids) > _MOST_LISTED_IDS:
            raise LabelsError(
                record.mask,
                expected=f"at most {_MOST_LISTED_IDS} class ids in the masks",
                found="more",
                do="If each id is one object, these are instance masks. Else name the classes in a labels.yaml.",
            )
    if not ids and broken is not None:
        raise broken
    return ids


def _name_ids(ids: set[int], rule: MaskRule, root: Path) -> tuple[Labels, MaskRule, tuple[str, ...]]:
    """Name the ids class_0, class_1, …; two of them, {0, 1} or {0, 255}, are background and foreground."""
    pair = ("background", "foreground")
    stored = rule.threshold is None and rule.values is None
    if stored and 255 in ids and ids <= {0, 255}:
        told = "no labels.yaml: the masks hold 0 and 255 only, read as background (id 0) and foreground (id 1)"
        return Labels(pair), replace(rule, values={0: 0, 255: 1}), (told,)
    classes = sorted(ids - {255})
    if not classes:
        raise LabelsError(
            root, expected="class ids in the masks", found="255 (ignored) alone", do="Check data.mask_values."
        )
    labels = Labels(pair) if set(classes) <= {0, 1} else Labels(tuple(f"class_{i}" for i in classes), tuple(classes))
    names = ", ".join(f"{i} {name}" for i, name in zip(labels.ids, labels.names, strict=True))
    void = "; 255 counts as ignored" if 255 in ids else ""
    rule = replace(rule, binary=False) if stored and 255 in ids else rule
    return labels, rule, (f"no labels.yaml: the ids in the masks make the classes {names}{void}",)
