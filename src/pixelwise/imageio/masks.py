"""Read masks as class indices, by a rule for the values of the file, and write them.

Without a rule, grey values, palette indices (never the palette's colours) and 1-bit values are class ids, and RGB colours are
those of the labels. If all three bands are equal and their values are no colours of the labels, they are class ids. JPEG and other lossy files are refused, since compression creates false ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, MaskError
from pixelwise.imageio import png
from pixelwise.imageio.images import Limits, RawMask, read_mask_values
from pixelwise.imageio.mask_colours import format_share, look_up
from pixelwise.imageio.mask_heuristics import numbered
from pixelwise.labels import Colour, Labels, default_colours
from pixelwise.storage import write_atomic
from pixelwise.tiles import Window

_KEY = "data.mask_values"
_THRESHOLD = f"--set '{_KEY}={{threshold: 128}}'"
_SHOWN = 4
_MOST_MAPPED = 32
IGNORED_COLOUR = (244, 244, 240)
_LUMA = np.array([299, 587, 114], np.uint32)  # ITU-R BT.601, in thousandths


@dataclass(frozen=True)
class MaskRule:
    """How the values of mask files are converted to class ids.

    Args:
        threshold: pixels of at least this brightness are id 1, others id 0; 1-bit white is 255. Allows lossy masks.
        values: class id (or ignore id) by file value; any other value is an error.
        colours: convert colours, also those of palettes, by the colours of the labels.
        ignored: colours of ignored pixels; only with `colours`.
        objects: every id is one object: 0 is id 0, any other (or any colour but black) is id 1.
        binary: without any of the above, read a mask of only 0 and 255 as the two classes. False if 255 marks ignored pixels.

    Raises:
        ConfigError: rules that exclude each other.
    """

    threshold: int | None = None
    values: Mapping[int, int] | None = None
    colours: bool = False
    ignored: tuple[Colour, ...] = ()
    binary: bool = True
    objects: bool = False

    def __post_init__(self) -> None:
        if (self.threshold is not None) + (self.values is not None) + self.colours + self.objects > 1:
            do = "Keep threshold, values, colours or objects."
            raise ConfigError(_KEY, expected="one rule", found="several", do=do)

    @property
    def stored(self) -> bool:
        """Whether file values are class ids, except perhaps 255."""
        return self.threshold is None and self.values is None and not self.colours and not self.objects

    @classmethod
    def from_config(cls, value: Any) -> MaskRule:
        """Read `data.mask_values`: null, {threshold: 128}, {0: 0, 255: 1}, {colours: true}, {objects: true}, {binary: false}.

        {colours: true, ignored: [[0, 0, 0]]} defines colours of ignored pixels; {objects: false} states that ids are classes.

        Raises:
            ConfigError: anything else.
        """
        if value is None:
            return cls()
        try:
            plain = dict(value)
            if set(plain) == {"threshold"}:
                return cls(threshold=_number(plain["threshold"]))
            if set(plain) == {"binary"} and isinstance(plain["binary"], bool):
                return cls(binary=plain["binary"])
            if set(plain) == {"objects"} and isinstance(plain["objects"], bool):
                return cls(objects=plain["objects"])
            if "colours" in plain and set(plain) <= {"colours", "ignored"} and isinstance(plain["colours"], bool):
                ignored = tuple((_number(r), _number(g), _number(b)) for r, g, b in plain.get("ignored") or ())
                return cls(colours=plain["colours"], ignored=ignored)
            if plain:
                return cls(values={_number(k): _number(v) for k, v in plain.items()})
        except (TypeError, ValueError):
            pass
        raise ConfigError(
            _KEY,
            expected="null, {threshold: 128}, {0: 0, 255: 1}, {colours: true}, {objects: true} or {binary: false}",
            found=repr(value),
            do="Write one of these.",
        )

    def to_config(self) -> dict[Any, Any]:
        """Return the complete plain form for `from_config`."""
        if self.threshold is not None:
            return {"threshold": self.threshold}
        if self.values is not None:
            return dict(self.values)
        if self.colours:
            return {"colours": True, **({"ignored": [list(each) for each in self.ignored]} if self.ignored else {})}
        return {"objects": True} if self.objects else {"binary": self.binary}


def read_mask(
    path: Path | str,
    labels: Labels,
    rule: MaskRule = MaskRule(),
    limits: Limits = Limits(),
    window: Window | None = None,
) -> tuple[NDArray[Any], list[str]]:
    """Read a mask, or a window (H, W) of it, as class indices.

    Returns:
        Indices (H, W) in `labels.dtype`, ignored pixels as `labels.ignore_index`; and notices of what was assumed.

    Raises:
        MaskError: no readable mask, or unknown ids or colours.
    """
    path = Path(path)
    return encode_values(path, _readable(path, rule, limits, window), labels, rule)


def encode_values(path: Path, raw: RawMask, labels: Labels, rule: MaskRule) -> tuple[NDArray[Any], list[str]]:
    """Convert the values of the mask file `path` like `read_mask`.

    Raises:
        MaskError: unknown ids or colours.
    """
    raw = _ids_of_equal_bands(raw, labels) if rule.stored else raw
    if rule.colours or (raw.kind == "colour" and rule.stored):
        return look_up(path, raw, labels, rule.ignored), []
    ids, notices = _ids(path, raw, rule, labels)
    mask, unknown = labels.encode(ids)
    if unknown:
        if min(unknown) < 0:
            raise negative_ids(path, unknown, ids.size, _known_values(ids, labels), labels)
        raise _unknown_ids(path, unknown, labels, ids.size, raw)
    return mask, notices


def read_ids(
    path: Path | str, rule: MaskRule = MaskRule(), limits: Limits = Limits(), window: Window | None = None
) -> tuple[NDArray[Any], list[str]]:
    """Read a mask, or a window (H, W) of it, as class ids, without labels.

    Returns:
        Ids (H, W), integers; and notices of what was assumed.

    Raises:
        MaskError: no readable mask, or one of colours, which need labels.
    """
    path = Path(path)
    return values_as_ids(path, _readable(path, rule, limits, window), rule)


def values_as_ids(path: Path, raw: RawMask, rule: MaskRule) -> tuple[NDArray[Any], list[str]]:
    """Convert the values of the mask file `path` like `read_ids`.

    Raises:
        MaskError: colours, which need labels.
    """
    raw = raw.single_band() if rule.stored else raw
    if rule.colours or (raw.kind == "colour" and rule.stored):
        raise MaskError(
            path,
            expected="class ids, or labels with a colour for each class",
            found="colours and no labels",
            do="Write a labels.yaml with names and colours.",
        )
    return _ids(path, raw, rule, None)


def _ids_of_equal_bands(raw: RawMask, labels: Labels) -> RawMask:
    """Return one band of a colour mask whose bands are equal, unless its values are grey colours of the labels.

    Without colours of their own, labels have none that is grey. With colours, values are ids only if one of them is the id of a
    class and no colour: white in a mask of black and white may be a colour that was forgotten.
    """
    single = raw.single_band()
    if single is raw or labels.colours == default_colours(labels.num_classes):
        return single
    greys = {red for red, green, blue in labels.colours if red == green == blue}
    present = set(np.unique(single.values).tolist())
    are_ids = present <= {*labels.ids, *(labels.ignore_ids or ())} and (present - greys) & set(labels.ids)
    return single if are_ids else raw


def _readable(path: Path, rule: MaskRule, limits: Limits, window: Window | None) -> RawMask:
    raw = read_mask_values(path, limits, window)
    require_lossless(path, raw, rule)
    return raw


def require_lossless(path: Path, raw: RawMask, rule: MaskRule) -> None:
    """Raise MaskError if the values of a mask file are not exact, and the rule needs exact ones."""
    if raw.kind == "lossy" and rule.threshold is None:
        raise MaskError(
            path,
            expected="a lossless mask, PNG or TIFF",
            found=f"lossy {raw.format}, whose compression creates false ids along the edges",
            do=f"Save the masks as PNG; or, with two classes only, read bright pixels as the second: {_THRESHOLD}.",
        )


def _ids(path: Path, raw: RawMask, rule: MaskRule, labels: Labels | None) -> tuple[NDArray[Any], list[str]]:
    """Apply the rule: return ids (H, W) and notices."""
    if rule.threshold is not None:
        return (_brightness(path, raw) >= rule.threshold).astype(np.uint8), []
    if rule.values is not None:
        return _by_values(path, raw, rule.values, labels), []
    if rule.objects:
        return _by_objects(path, raw), []
    notices = ["the bands of the masks are equal: one is read as class ids"] if raw.bands > 1 else []
    pair = _binary_ids(raw.values, labels) if rule.binary else None
    if pair is None:
        return raw.values, notices
    ids = np.where(raw.values == 255, pair[1], pair[0]).astype(np.int32)
    return ids, [
        *notices,
        f"values 0 and 255 are read as class ids {pair[0]} and {pair[1]}. Set {_KEY} to state a rule.",
    ]


def _binary_ids(values: NDArray[Any], labels: Labels | None) -> tuple[int, int] | None:
    """Return the ids for 0 and 255 if a mask has no other values and there are two classes."""
    if values.dtype.itemsize > 4 or not values.size or values.max() != 255 or values.min() < 0:
        return None
    if labels is not None and (labels.num_classes != 2 or 255 in labels.ids or 0 not in labels.ids):
        return None
    if np.any((values != 0) & (values != 255)):
        return None
    return (0, 1) if labels is None else (0, max(labels.ids))


def _brightness(path: Path, raw: RawMask) -> NDArray[Any]:
    """Return the values to compare with a threshold: grey values, luma of colours, 255 for 1-bit white."""
    values = raw.values
    if raw.kind == "binary":
        return values * np.uint8(255)
    if raw.palette is not None:
        table = np.asarray(raw.palette, np.uint8).reshape(-1, 3)
        used = np.unique(values)
        if used[-1] >= len(table) or np.ptp(table[used].astype(int), axis=1).any():
            raise MaskError(
                path,
                expected="grey values to compare with the threshold",
                found="a palette of colours",
                do=f"Its indices are already class ids: omit {_KEY}, or map them, {{0: 0, 1: 1}}.",
            )
        return table[values, 0]
    if values.ndim == 3:
        return (values @ _LUMA + 500) // 1000
    return values


def _by_values(path: Path, raw: RawMask, table: Mapping[int, int], labels: Labels | None) -> NDArray[Any]:
    values = raw.values
    if values.ndim == 3:
        if np.any(values != values[..., :1]):
            raise MaskError(
                path,
                expected=f"single values, as mapped by {_KEY}",
                found="colours",
                do=f"Define the colours of the labels and set {_KEY}: {{colours: true}}.",
            )
        values = values[..., 0]
    if raw.kind == "binary" and 255 in table and 1 not in table:
        values = values * np.uint8(255)
    sources = np.array(sorted(table), np.int64)
    targets = np.array([table[int(s)] for s in sources], np.int64)
    place = np.minimum(np.searchsorted(sources, values), len(sources) - 1)
    unknown = sources[place] != values
    if unknown.any():
        counts = _counts(values[unknown])
        if min(counts) < 0:
            raise negative_ids(path, counts, values.size, table, labels)
        raise MaskError(
            path,
            expected=f"values {_spans(list(table))}, as mapped by {_KEY}",
            found=_listed(counts),
            do=_smoothed(counts, values.size, raw) or f"Add the value to {_KEY}.",
        )
    return targets[place]


def _by_objects(path: Path, raw: RawMask) -> NDArray[np.uint8]:
    """Return 1 for objects, 0 for background."""
    values = raw.values
    if values.size and values.min() < 0:
        raise MaskError(
            path,
            expected="0, or the number of an object",
            found=_listed(_counts(values[values < 0])),
            do="Number the objects from 1 on; background is 0.",
        )
    return np.asarray(values.any(axis=-1) if values.ndim == 3 else values != 0, np.uint8)


def _unknown_ids(path: Path, unknown: dict[int, int], labels: Labels, size: int, raw: RawMask) -> MaskError:
    first = next(iter(unknown))
    if set(unknown) == {255} and labels.num_classes == 2:
        do = f"Set {_KEY}: {{0: 0, 255: 1}} where 255 is the second class, or set ignore_index: 255."
    else:
        which = f"class {first}" if len(unknown) == 1 else "the classes"
        do = _smoothed(unknown, size, raw) or f"Add {which} to labels.yaml, or set ignore_index."
        if labels.num_classes == 2 and numbered(raw):
            do = f"If each id is one object, read them as such: --set '{_KEY}={{objects: true}}'."
    return MaskError(path, expected=f"class ids {_spans(labels.ids)}", found=_listed(unknown), do=do)


def negative_ids(
    path: Path, unknown: Mapping[int, int], size: int, known: Mapping[int, int], labels: Labels | None
) -> MaskError:
    """Make the error for a mask with negative ids, which nearly always mark pixels without a label.

    Args:
        path: the mask.
        unknown: the ids that are no class, of all masks, with their pixels in this one; at least one is negative.
        size: its pixels.
        known: the class id of the other values, of all masks.
        labels: the classes; None if they are listed from the masks.
    """
    found = f"{_listed({id_: count for id_, count in unknown.items() if count})}, {format_share(sum(unknown.values()) / size)} of the mask"
    do = advise_on_negative_ids(unknown, known, labels)
    return MaskError(path, expected=f"class ids {_spans(known)}", found=found, do=do)


def advise_on_negative_ids(unknown: Iterable[int], known: Mapping[int, int], labels: Labels | None) -> str:
    """Return the options that ignore negative ids (see `negative_ids`)."""
    unknown = sorted(unknown)
    negative = [str(id_) for id_ in unknown if id_ < 0]
    others = [str(id_) for id_ in unknown if id_ >= 0]
    index = negative[0] if len(negative) == 1 else f"[{', '.join(negative)}]"
    ignored = 255 if labels is None else next(iter(labels.ignore_ids or ()), None)
    if ignored is None or len(known) > _MOST_MAPPED:
        advice = f"If negative ids mark pixels without a label, set ignore_index: {index} in labels.yaml."
    else:
        table = dict(known) | dict.fromkeys(unknown, ignored)
        pairs = ", ".join(f"{value}: {id_}" for value, id_ in sorted(table.items()))
        described = "set" if labels is not None else "name the classes and set"
        advice = f"Ignore pixels without a label: --set '{_KEY}={{{pairs}}}'; or {described} ignore_index: {index} in labels.yaml."
    if others:
        advice += f" Add {'class' if len(others) == 1 else 'classes'} {', '.join(others[:_SHOWN])} to labels.yaml, if"
        advice += " they are to be learned."
    return advice


def _known_values(ids: NDArray[Any], labels: Labels) -> dict[int, int]:
    """Return the id of every value: that of each class, and of ignored pixels in a mask; 255 may be the second class."""
    present = set(np.unique(ids).tolist())
    known = {id_: id_ for id_ in (*labels.ids, *(labels.ignore_ids or ())) if id_ in labels.ids or id_ in present}
    if labels.num_classes == 2 and 255 in present - set(labels.ids) and max(labels.ids) not in present:
        known[255] = max(labels.ids)
    return known


def _smoothed(unknown: Mapping[int, int], size: int, raw: RawMask) -> str | None:
    """Return advice for soft edges: many grey values, or some if most of the mask is 0 and 255; else None."""
    between = [value for value in unknown if 0 < value < 255]
    if raw.kind != "index" or raw.values.dtype != np.uint8 or len(between) < 3:
        return None
    ends = int(np.count_nonzero((raw.values == 0) | (raw.values == 255)))
    if len(between) < 32 and (2 * ends < size or raw.values.max() != 255):
        return None
    return f"The edges look smoothed (anti-aliased): export masks without smoothing, or read bright pixels as the second class: {_THRESHOLD}."


def _counts(values: NDArray[Any]) -> dict[int, int]:
    present, counts = np.unique(values, return_counts=True)
    return dict(zip(present.tolist(), counts.tolist(), strict=True))


def _listed(counts: Mapping[Any, int]) -> str:
    """Format as "17 in 212 pixels, 18 in 1 pixel and 3 more", most frequent first."""
    order = sorted(counts, key=lambda value: -counts[value])
    shown = [f"{value} in {counts[value]} pixel{'s' * (counts[value] != 1)}" for value in order[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(order) - _SHOWN} more" if len(order) > _SHOWN else "")


def _spans(ids: Any) -> str:
    """Format as 0–4 without gaps, else as a list, shortened in the middle if it is long."""
    ids = sorted(ids)
    if len(ids) > 2 and ids[-1] - ids[0] == len(ids) - 1:
        return f"{ids[0]}–{ids[-1]}"
    texts = list(map(str, ids))
    return ", ".join(texts if len(texts) <= 12 else [*texts[:8], "…", texts[-1]])


def _number(value: Any) -> int:
    """Read an integer; text is allowed, since JSON converts the keys of a mapping to text."""
    if isinstance(value, bool) or (not isinstance(value, int | str)):
        raise TypeError(value)
    return int(value)


def write_mask(path: Path | str, mask: NDArray[Any], labels: Labels) -> None:
    """Write class indices as a PNG of class ids, atomically.

    Ids up to 255 are written with the colours of the classes as palette, larger ones as 16-bit grey.

    Args:
        path: ends in .png.
        mask: (H, W) class indices, or `labels.ignore_index`.
        labels: ids and colours of the classes.

    Raises:
        MaskError: values that are no class, ignored pixels without an ignore id, or ids above 65535.
        ResourceError: the disk does not take the file.
    """
    path = Path(path)
    require_indices(path, mask, labels)
    if not labels.ignore_ids and (mask == labels.ignore_index).any():
        raise MaskError(
            path,
            expected="an id for ignored pixels",
            found=f"none in the labels and {np.count_nonzero(mask == labels.ignore_index)} ignored pixels",
            do="Set ignore_index in labels.yaml to an id that is no class.",
        )
    write_atomic(path, encode_png(path, labels.decode(mask), labels, *labels.ignore_ids or ()))


def encode_png(path: Path, ids: NDArray[Any], labels: Labels, *ignored: int) -> bytes:
    """Encode class ids (H, W) as PNG, with a palette if they have 8 bits; `ignored` are the ids of ignored pixels.

    Raises:
        MaskError: not two axes, or ids above 65535.
    """
    if ids.ndim != 2:
        found = f"shape {ids.shape}"
        raise MaskError(path, expected="a mask of shape (H, W)", found=found, do="Write one mask at a time.")
    if ids.dtype.itemsize > 2:
        found = str(max(*labels.ids, *ignored))
        raise MaskError(path, expected="ids that fit in 16 bits", found=found, do="Renumber the classes below 65536.")
    if ids.dtype != np.uint8:
        return png.encode(ids)
    colours = np.zeros((256, 3), np.uint8)
    colours[[i for i in ignored if 0 <= i < 256]] = IGNORED_COLOUR
    colours[list(labels.ids)] = labels.colours
    return png.encode(ids, colours)


def require_indices(path: Path, mask: NDArray[Any], labels: Labels) -> None:
    """Raise if a mask has other values than class indices and the ignore index.

    Raises:
        MaskError: it has; `path` is the file to be written.
    """
    if mask.ndim not in (2, 3) or mask.dtype.kind not in "ui":
        found = f"shape {mask.shape} of {mask.dtype}"
        raise MaskError(path, expected="whole numbers of shape (H, W)", found=found, do="Write one mask at a time.")
    unknown = ((mask < 0) | (mask >= labels.num_classes)) & (mask != labels.ignore_index)
    if unknown.any():
        raise MaskError(
            path,
            expected=f"class indices 0–{labels.num_classes - 1} or {labels.ignore_index}",
            found=_listed(_counts(mask[unknown])),
            do="Write indices, not ids: Labels.encode translates.",
        )
