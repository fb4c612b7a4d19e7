"""Find the classes of a data set: as described by the user or the format, otherwise from the ids in the masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.config import DataConfig, read_yaml
from pixelwise.datasets.mask_values import (
    MaskIds,
    in_threads,
    list_ids,
    mask_files,
    read_middle,
    read_values,
    without_errors,
)
from pixelwise.datasets.negative_ids import require_no_negative_ids
from pixelwise.errors import LabelsError
from pixelwise.formats.records import Record
from pixelwise.imageio.mask_heuristics import MaskStatistics, MaskValues, count_off_border, count_regions
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Labels

_LISTED = "listed from the masks"
_MAX_IDS = 256
_MAX_NAMES = 12


class _Found(NamedTuple):
    """Labels, the rule by which mask values become ids, where the labels come from, and notices."""

    labels: Labels
    rule: MaskRule
    source: str
    notices: tuple[str, ...] = ()


def find_labels(
    config: DataConfig,
    root: Path,
    base: Path,
    records: Sequence[Record],
    rule: MaskRule,
    known: Labels | None = None,
) -> tuple[Labels, MaskRule, str, tuple[str, ...]]:
    """Find the classes from the configuration, labels.yaml, the format (`known`), or the ids in the masks, in this order.

    Returns:
        The labels, the rule (exact if ids were listed from the masks), the source of the labels, and notices.

    Raises:
        LabelsError: a missing or invalid description, classes of the annotations that it does not define, or masks with
            too many ids to be classes.
    """
    found = _find(config, root, base, records, rule, known)
    _require_defined(found.labels, records, found.source)
    if config.mask_values is None and found.rule.ignored:  # labels may define a class that the format ignores
        ignored = tuple(colour for colour in found.rule.ignored if colour not in found.labels.colours)
        found = found._replace(rule=replace(found.rule, ignored=ignored))
    return found


def _require_defined(labels: Labels, records: Sequence[Record], source: str) -> None:
    """Raise LabelsError if annotations use classes that the labels do not define, since shapes refer to names."""
    undefined: Counter[str] = Counter()
    for record in records:
        if record.source is not None:
            undefined.update(record.source.names - set(labels.names))
    if undefined:
        names = sorted(undefined, key=lambda name: (-undefined[name], name))
        found = ", ".join(f"{name!r} in {undefined[name]} image{'s' * (undefined[name] != 1)}" for name in names[:4])
        raise LabelsError(
            source,
            expected="every class of the annotations",
            found=found + (f" and {len(names) - 4} more" if len(names) > 4 else ""),
            do=f"Add them, or ignore their pixels: data.ignored: [{', '.join(names[:4])}].",
        )


def _find(
    config: DataConfig, root: Path, base: Path, records: Sequence[Record], rule: MaskRule, known: Labels | None
) -> _Found:
    if config.labels is not None and not isinstance(config.labels, str):
        return _described(config.labels, "data.labels", config, records, rule, known)
    name = config.labels or "labels.yaml"
    path = next((folder / name for folder in (base, root) if (folder / name).is_file()), None)
    if path is not None:
        return _described(read_yaml(path)[0], str(path), config, records, rule, known)
    if config.labels is not None:
        raise LabelsError(
            "data.labels", expected=f"the file {name}", found=f"none in {base} or {root}", do="Check the path."
        )
    if known is not None:
        _require_annotations(known, records, root)
        return _Found(known, rule, "the annotations")
    if rule.colours:
        raise LabelsError(
            root,
            expected="names and colours of the classes, since the masks are coloured",
            found="no labels.yaml",
            do="Write a labels.yaml with names: […] and colours: [[r, g, b], …].",
        )
    rule, notices = _detect_objects(config, root, records, rule)
    if rule.objects:
        default = "no labels.yaml: 0 is background (id 0), every other id in the masks is one object (id 1)"
        labels = Labels(("background", "object"), countable=(False, True))
        return _Found(labels, rule, _LISTED, notices or (default,))
    found = _list_ids(records, rule)
    require_no_negative_ids(found.ids, records, rule)
    labels, rule, notice = _name_ids(found, rule, root)
    return _Found(labels, rule, _LISTED, (notice,))


def _described(
    plain: Any, source: str, config: DataConfig, records: Sequence[Record], rule: MaskRule, known: Labels | None
) -> _Found:
    """Use a description of the classes, completed by the format."""
    labels, notices = _complete(Labels.from_dict(plain, source), plain, records, rule, known)
    ignore_index = plain.get("ignore_index") if isinstance(plain, Mapping) else None
    ignored = ignore_index if isinstance(ignore_index, list | tuple) else (ignore_index,)
    if 255 in ignored and config.mask_values is None:
        rule = replace(rule, binary=False)
    return _Found(labels, _decide_255(labels, rule, records), source, notices)


def _require_annotations(known: Labels, records: Sequence[Record], root: Path) -> None:
    """Raise LabelsError if the annotations hold no class but that of unlabelled pixels."""
    if known.names == ("background",) and all(record.source is not None for record in records):
        raise LabelsError(
            root,
            expected="classes in the annotations",
            found=f"none: nothing is annotated in {len(records)} image{'s' * (len(records) != 1)}",
            do="Annotate some of them; or, if they are meant to be empty, name the classes in a labels.yaml.",
        )


def _complete(
    labels: Labels, plain: Any, records: Sequence[Record], rule: MaskRule, known: Labels | None
) -> tuple[Labels, tuple[str, ...]]:
    """Take ids, colours and countable classes that a description omits from the format, if there are mask files."""
    has_masks = any(record.mask is not None and record.source is None for record in records)
    if known is None or not has_masks or not set(labels.names) <= set(known.names):
        return labels, ()
    given = plain if isinstance(plain, Mapping) else {"names": plain}
    described = {key for key, value in given.items() if value is not None}
    described |= {"ids"} if rule.colours or isinstance(given["names"], Mapping) else set()
    described |= {"colours"} if "colors" in described else set()
    place = [known.names.index(name) for name in labels.names]
    keys = [key for key in ("ids", "colours", "countable") if key not in described]
    taken: dict[str, Any] = {key: tuple(getattr(known, key)[k] for k in place) for key in keys}
    if "ids" in taken and "ignore_index" not in described:
        taken["ignore_ids"] = known.ignore_ids
    changed = replace(labels, **taken)
    differ = [key for key in ("ids", "colours") if getattr(changed, key) != getattr(labels, key)]
    return changed, (f"{' and '.join(differ)} of the classes are taken from the annotations",) if differ else ()


def _detect_objects(
    config: DataConfig, root: Path, records: Sequence[Record], rule: MaskRule
) -> tuple[MaskRule, tuple[str, ...]]:
    """Examine masks of unspecified meaning: do their ids number objects, or are they two smoothed classes?

    Raises:
        LabelsError: smoothed masks hold no class ids; the user has to choose a threshold.
    """
    if config.mask_values is not None or rule != MaskRule():
        return rule, ()
    masks = mask_files(records)
    statistics = MaskStatistics()
    for values in without_errors(read_values, masks):
        statistics.add(values)
    if statistics.soft(without_errors(lambda path: count_off_border(read_middle(path)), masks)):
        raise LabelsError(
            root,
            expected="class ids in the masks",
            found=f"dark and bright, and {len(statistics.greys)} grey values along the edges between them (smoothed masks,"
            f" such as {_with_greys(masks, statistics.greys)})",
            do="Read them as two classes divided at 128: --set 'data.mask_values={threshold: 128}'."
            " If they are class ids after all, name these in a labels.yaml.",
        )
    if not statistics.objects(without_errors(lambda path: count_regions(read_middle(path)), masks)):
        return rule, ()
    low, high = min(statistics.tops), max(statistics.tops)
    notice = (
        f"no labels.yaml: the masks number objects (1 to {low} in one, 1 to {high} in another, nearly each id one region), so 0"
        " is background (id 0) and every other id is one object (id 1)."
        " Are they classes? --set 'data.mask_values={objects: false}'"
    )
    return replace(rule, objects=True), (notice,)


def _with_greys(masks: Sequence[Path], greys: set[int]) -> str:
    """Return the name of a mask that has some of these values."""
    values = in_threads(read_values, masks)
    return next(path.name for path, mask in values if isinstance(mask, MaskValues) and greys & set(mask.ids.tolist()))


def _decide_255(labels: Labels, rule: MaskRule, records: Sequence[Record]) -> MaskRule:
    """Decide for all masks together whether 255 is the second of two classes: not if a mask contains the id of that class.

    Raises:
        LabelsError: some masks hold only 0 and 255, and others the id of the second class.
    """
    if not (rule.stored and rule.binary) or labels.num_classes != 2 or 255 in labels.ids:
        return rule
    second = max(labels.ids)
    found = list_ids(records, lambda found: second in found.ids and bool(found.pairs))
    if second not in found.ids:
        return rule
    _require_one_meaning(found, labels.ids, second)
    return replace(rule, binary=False)


def _require_one_meaning(found: MaskIds, ids: Sequence[int], meant: int) -> None:
    """Raise LabelsError if masks of 0 and 255 only, where 255 looks like class id `meant`, are mixed with masks of `ids`."""
    if not found.pairs:
        return
    other = (found.ignoring or found.others)[0]
    also = "beside 255" if found.ignoring else "instead of 255"
    stored = ", ".join(f"{id_}: {id_}" for id_ in ids)
    raise LabelsError(
        found.pairs[0],
        expected="255 with the same meaning in all masks",
        found=f"only 0 and 255, as if 255 were a class, and id {max(ids)} {also} in {other}, as if 255 were ignored",
        do=f"If 255 is a class: --set 'data.mask_values={{{stored}, 255: {meant}}}'."
        f" If it marks ignored pixels: --set 'data.mask_values={{{stored}, 255: 255}}'.",
    )


def _list_ids(records: Sequence[Record], rule: MaskRule) -> MaskIds:
    """List the ids in the masks."""
    if rule.threshold is not None:
        return MaskIds({0, 1})
    if rule.values is not None:
        return MaskIds(set(rule.values.values()))
    found = list_ids(records, lambda found: len(found.ids) > _MAX_IDS)
    if len(found.ids) > _MAX_IDS:
        raise LabelsError(
            found.last,
            expected=f"at most {_MAX_IDS} class ids in the masks",
            found="more",
            do="If each id is one object: --set 'data.mask_values={objects: true}'. Else name the classes in a labels.yaml.",
        )
    if not found.ids and not found.bits and found.error is not None:
        raise found.error
    return found


def _name_ids(found: MaskIds, rule: MaskRule, root: Path) -> tuple[Labels, MaskRule, str]:
    """Name the ids class_0, class_1, …; {0, 1} and {0, 255} are background and foreground.

    Raises:
        LabelsError: no class, or 255 is a class in some masks and not in others.
    """
    pair = ("background", "foreground")
    ids = found.ids
    if rule.stored and 255 in ids and ids <= {0, 255}:
        notice = "no labels.yaml: the masks hold 0 and 255 only, read as background (id 0) and foreground (id 1)"
        return Labels(pair), replace(rule, values={0: 0, 255: 1}), notice
    classes = sorted((ids | found.bits) - {255})
    # With more classes, a few masks may well show class 0 and ignored pixels only.
    if rule.stored and rule.binary and (len(classes) <= 2 or len(found.pairs) > len(found.others)):
        _require_one_meaning(found, classes, 1 if classes[-1] == 1 else classes[-1] + 1)
    if not classes:
        raise LabelsError(
            root, expected="class ids in the masks", found="only 255 (ignored)", do="Check data.mask_values."
        )
    labels = Labels(pair) if set(classes) <= {0, 1} else Labels(tuple(f"class_{i}" for i in classes), tuple(classes))
    names = [f"{i} {name}" for i, name in zip(labels.ids, labels.names, strict=True)]
    if len(names) > _MAX_NAMES:
        names = [*names[: _MAX_NAMES - 1], f"… {names[-1]} ({len(names)})"]
    notice = f"no labels.yaml: the ids in the masks make the classes {', '.join(names)}"
    if 255 in ids:
        notice += "; 255 is ignored"
        rule = replace(rule, binary=False) if rule.stored else rule
    return labels, rule, notice
