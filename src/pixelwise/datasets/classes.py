"""Find the classes of a data set: named by its owner, else listed from the ids that its masks hold.

Comes in: the `data` section, the folders, the records. Goes out: `Labels`, and the rule by which mask values become ids.
Knows nothing of images, parts or tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.config import DataConfig, read_yaml
from pixelwise.errors import DataError, LabelsError
from pixelwise.formats.reading import read_truth_ids
from pixelwise.formats.records import Record
from pixelwise.imageio.images import read_mask_values
from pixelwise.imageio.mask_heuristics import Signs
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Labels

_MOST_LISTED_IDS = 256
_MOST_LOOKED_AT = 64
_MOST_SHOWN = 12


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
    if config.mask_values is None and rule.ignored:  # its owner may make a class of what a format leaves out
        rule = replace(rule, ignored=tuple(colour for colour in rule.ignored if colour not in labels.colours))
    return labels, rule, source, told


def _require_names(labels: Labels, records: Sequence[Record], source: str) -> None:
    """Hold the names in annotations against the labels: shapes find their class by name."""
    lost: dict[str, int] = {}
    for record in records:
        for name in record.source.names - set(labels.names) if record.source is not None else ():
            lost[name] = lost.get(name, 0) + 1
    if lost:
        names = sorted(lost, key=lambda name: (-lost[name], name))
        found = ", ".join(f"{name!r} in {lost[name]} image{'s' * (lost[name] != 1)}" for name in names[:4])
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
        labels, filled = _filled_in(Labels.from_dict(config.labels, "data.labels"), config.labels, records, rule, known)
        return labels, _settled(labels, _named(rule, config, config.labels), records), "data.labels", filled
    name = config.labels or "labels.yaml"
    path = next((folder / name for folder in (base, root) if (folder / name).is_file()), None)
    if path is not None:
        plain, _ = read_yaml(path)
        labels, filled = _filled_in(Labels.from_dict(plain, str(path)), plain, records, rule, known)
        return labels, _settled(labels, _named(rule, config, plain), records), str(path), filled
    if config.labels is not None:
        raise LabelsError(
            "data.labels", expected=f"the file {name}", found=f"none in {base} or {root}", do="Check the path."
        )
    if known is not None:
        _require_class(known, records, root)
        return known, rule, "the annotations", ()
    if rule.colours:
        raise LabelsError(
            root,
            expected="names and colours of the classes, since the masks are coloured",
            found="no labels.yaml",
            do="Write a labels.yaml with names: […] and colours: [[r, g, b], …].",
        )
    rule, seen = _seen(config, root, records, rule)
    if rule.objects:
        told = "no labels.yaml: 0 is background (id 0), every other id in the masks is one object (id 1)"
        return Labels(("background", "object"), countable=(False, True)), rule, "listed from the masks", seen or (told,)
    labels, rule, listed = _name_ids(_list_ids(records, rule), rule, root)
    return labels, rule, "listed from the masks", listed


def _require_class(known: Labels, records: Sequence[Record], root: Path) -> None:
    """Refuse shapes without a class: what no shape covers is all there is.

    Raises:
        LabelsError: there is none but the one of unlabelled pixels.

    """
    if known.names == ("background",) and all(record.source is not None for record in records):
        raise LabelsError(
            root,
            expected="classes in the annotations",
            found=f"none: nothing is labelled in {len(records)} image{'s' * (len(records) != 1)}",
            do="Label some of them; or, where these are to show nothing, name the classes in a labels.yaml.",
        )


def _filled_in(
    labels: Labels, plain: Any, records: Sequence[Record], rule: MaskRule, known: Labels | None
) -> tuple[Labels, tuple[str, ...]]:
    """Take from the format what a description of its classes leaves out: in masks, names alone say neither ids nor colours."""
    masks = any(record.mask is not None and record.source is None for record in records)
    if known is None or not masks or not set(labels.names) <= set(known.names):
        return labels, ()
    given = plain if isinstance(plain, Mapping) else {"names": plain}
    said = {key for key, value in given.items() if value is not None}
    said |= {"ids"} if rule.colours or isinstance(given["names"], Mapping) else set()
    said |= {"colours"} if "colors" in said else set()
    place = [known.names.index(name) for name in labels.names]
    taken: dict[str, Any] = {
        key: tuple(getattr(known, key)[k] for k in place) for key in ("ids", "colours", "countable") if key not in said
    }
    if "ids" in taken and "ignore_index" not in said:
        taken["ignore_ids"] = known.ignore_ids
    changed = replace(labels, **taken)
    differ = [key for key in ("ids", "colours") if getattr(changed, key) != getattr(labels, key)]
    return changed, (f"{' and '.join(differ)} of the classes are as the annotations have them",) if differ else ()


def _seen(
    config: DataConfig, root: Path, records: Sequence[Record], rule: MaskRule
) -> tuple[MaskRule, tuple[str, ...]]:
    """Look at up to 64 masks, where nobody says what their values mean: are they objects, or two classes with soft edges?

    Raises:
        LabelsError: soft edges, which are no class ids: the threshold is the user's to say.

    """
    if config.mask_values is not None or rule != MaskRule():
        return rule, ()
    masks = sorted({r.mask for r in records if r.mask is not None and r.source is None and r.plane is None})
    signs = Signs()
    for path in masks[:: max(len(masks) // _MOST_LOOKED_AT, 1)][:_MOST_LOOKED_AT]:
        try:
            signs.add(read_mask_values(path))
        except DataError:
            continue  # told where the mask is used
    if signs.soft:
        raise LabelsError(
            root,
            expected="class ids in the masks",
            found=f"dark and bright, and {len(signs.greys)} grey values along the edges between them (smoothed masks)",
            do="Read them as two classes, from the middle on the second: --set 'data.mask_values={threshold: 128}'."
            " Where they are class ids after all, name these in a labels.yaml.",
        )
    if not signs.objects:
        return rule, ()
    low, high = min(signs.tops), max(signs.tops)
    told = (
        f"no labels.yaml: the masks number objects (1 to {low} in one, 1 to {high} in another, nearly each id one region), so 0"
        " is background (id 0) and every other id is one object (id 1)."
        " Are they classes? --set 'data.mask_values={objects: false}'"
    )
    return replace(rule, objects=True), (told,)


def _named(rule: MaskRule, config: DataConfig, plain: Any) -> MaskRule:
    """Take 255 as what the description of the classes calls it: ignored where it says so, whatever the masks look like."""
    given = plain.get("ignore_index") if isinstance(plain, Mapping) else None
    ignored = 255 in (given if isinstance(given, list | tuple) else (given,))
    return replace(rule, binary=False) if ignored and config.mask_values is None else rule


def _settled(labels: Labels, rule: MaskRule, records: Sequence[Record]) -> MaskRule:
    """Settle for all masks together whether 255 can be the second of two classes: not where masks hold the id itself.

    A mask of 0 and 255 alone cannot tell; some of the others can. At most 64 are read.
    """
    if not (rule.stored and rule.binary) or labels.num_classes != 2 or 255 in labels.ids:
        return rule
    masks = [record for record in records if record.mask is not None and record.source is None]
    some = masks[:: max(len(masks) // _MOST_LOOKED_AT, 1)][:_MOST_LOOKED_AT]
    as_stored = replace(rule, binary=False)
    for record in some:
        try:
            ids = read_truth_ids(record, as_stored)
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
            ids.update(np.unique(read_truth_ids(record, as_stored)).tolist())
        except DataError as error:  # told where the mask is used
            broken = broken or error
        if len(ids) > _MOST_LISTED_IDS:
            raise LabelsError(
                record.mask,
                expected=f"at most {_MOST_LISTED_IDS} class ids in the masks",
                found="more",
                do="If each id is one object: --set 'data.mask_values={objects: true}'. Else name the classes in a labels.yaml.",
            )
    if not ids and broken is not None:
        raise broken
    return ids


def _name_ids(ids: set[int], rule: MaskRule, root: Path) -> tuple[Labels, MaskRule, tuple[str, ...]]:
    """Name the ids class_0, class_1, …; two of them, {0, 1} or {0, 255}, are background and foreground."""
    pair = ("background", "foreground")
    if rule.stored and 255 in ids and ids <= {0, 255}:
        told = "no labels.yaml: the masks hold 0 and 255 only, read as background (id 0) and foreground (id 1)"
        return Labels(pair), replace(rule, values={0: 0, 255: 1}), (told,)
    classes = sorted(ids - {255})
    if not classes:
        raise LabelsError(
            root, expected="class ids in the masks", found="255 (ignored) alone", do="Check data.mask_values."
        )
    labels = Labels(pair) if set(classes) <= {0, 1} else Labels(tuple(f"class_{i}" for i in classes), tuple(classes))
    pairs = [f"{i} {name}" for i, name in zip(labels.ids, labels.names, strict=True)]
    names = ", ".join(
        pairs if len(pairs) <= _MOST_SHOWN else [*pairs[: _MOST_SHOWN - 1], f"… {pairs[-1]} ({len(pairs)})"]
    )
    void = "; 255 counts as ignored" if 255 in ids else ""
    rule = replace(rule, binary=False) if rule.stored and 255 in ids else rule
    return labels, rule, (f"no labels.yaml: the ids in the masks make the classes {names}{void}",)
