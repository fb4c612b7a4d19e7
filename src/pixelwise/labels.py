"""The classes of a data set: names, ids in mask files, colours and ignored ids.

In memory, masks contain class *indices* 0…K-1 or `Labels.ignore_index`. They are converted from and to the *ids* of files
only by `Labels.encode` and `Labels.decode`.
"""

from __future__ import annotations

import colorsys
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import LabelsError

Colour = tuple[int, int, int]
# Names of the class of pixels that are nothing else, in lower case.
BACKGROUNDS = ("background", "_background_", "__background__", "unlabeled", "unlabelled")
_MAX_ID = 2**24 - 1
_MIN_IGNORED = -(2**31)


def default_colours(count: int) -> tuple[Colour, ...]:
    """Return `count` distinguishable colours: dark grey for the first class, then hues a golden angle apart."""
    colours: list[Colour] = [(38, 40, 48)]
    for k in range(1, count):
        hue = (0.58 + 0.61803398875 * (k - 1)) % 1.0
        lightness = (0.58, 0.44, 0.70)[(k - 1) // 6 % 3]
        r, g, b = colorsys.hls_to_rgb(hue, lightness, 0.72)
        colours.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colours[:count])


@dataclass(frozen=True)
class Labels:
    """The classes of a data set.

    Args:
        names: one name per class, in the order of the class indices.
        ids: the id of each class in mask files, in any order, gaps allowed; 0…K-1 by default.
        colours: (red, green, blue) per class, 0-255; `default_colours` by default.
        countable: whether each class consists of countable objects ("thing"); False by default.
        ignore_ids: ids of ignored pixels in files, the one that is written first; by default 255, unless it is a class. They
            may be negative; if all are, 255 is added (or the next id behind the classes, if 255 is one), since image files
            that are written hold no negative ids.

    Raises:
        LabelsError: missing, duplicate or mismatching entries.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()
    countable: tuple[bool, ...] = ()
    ignore_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        count = len(self.names)
        put(self, "names", tuple(str(name) for name in self.names))
        put(self, "ids", tuple(_integer(i, "ids") for i in self.ids) or tuple(range(count)))
        put(self, "colours", tuple(_colour(c) for c in self.colours) or default_colours(count))
        put(self, "countable", tuple(self.countable) or (False,) * count)
        ignore = (255,) if self.ignore_ids is None else tuple(_integer(i, "ignore_index") for i in self.ignore_ids)
        ignore = tuple(i for i in ignore if self.ignore_ids is not None or i not in self.ids)
        if ignore and max(ignore) < 0:
            ignore = (255 if 255 not in self.ids else max(self.ids) + 1, *ignore)
        put(self, "ignore_ids", tuple(sorted(ignore, key=lambda i: i < 0)))
        self._validate()

    def _validate(self) -> None:
        if not self.names:
            raise LabelsError("labels", expected="at least one class name", found="none", do="Name the classes.")
        for field in ("ids", "colours", "countable"):
            if len(getattr(self, field)) != len(self.names):
                raise LabelsError(
                    f"labels.{field}",
                    expected=f"{len(self.names)} entries, one per class",
                    found=str(len(getattr(self, field))),
                    do="Add one entry per class, or omit the key.",
                )
        for field in ("names", "ids"):
            values = getattr(self, field)
            duplicates = sorted({str(v) for v in values if values.count(v) > 1})
            if duplicates:
                raise LabelsError(
                    f"labels.{field}",
                    expected="unique entries",
                    found=f"{', '.join(duplicates)} twice",
                    do="Change one.",
                )
        both = sorted(set(self.ids) & set(self.ignore_ids or ()))
        if both:
            raise LabelsError(
                "labels.ignore_index",
                expected="an id that is not a class",
                found=f"{both[0]}, which is class {self.names[self.ids.index(both[0])]!r}",
                do="Choose another ignore_index, or remove the class.",
            )
        if not all(isinstance(c, bool) for c in self.countable):
            raise LabelsError(
                "labels.countable",
                expected="true or false per class",
                found=str(self.countable),
                do="Correct the list.",
            )
        invalid = [i for i in self.ids if not 0 <= i <= _MAX_ID]
        if invalid:
            ignored = (
                "If it marks pixels without a label, set it as ignore_index instead; otherwise renumber the classes."
            )
            do = ignored if invalid[0] < 0 else "Renumber the classes."
            raise LabelsError("labels.ids", expected=f"ids 0–{_MAX_ID}", found=str(invalid[0]), do=do)
        invalid = [i for i in self.ignore_ids or () if not _MIN_IGNORED <= i <= _MAX_ID]
        if invalid:
            expected = f"ids {_MIN_IGNORED} to {_MAX_ID}"
            raise LabelsError("labels.ignore_index", expected=expected, found=str(invalid[0]), do="Choose another id.")

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.names)

    @property
    def background(self) -> str | None:
        """The name of the background class, one of `BACKGROUNDS` in any case; None if there is none."""
        spelt = {name.lower(): name for name in reversed(self.names)}
        return next((spelt[name] for name in BACKGROUNDS if name in spelt), None)

    @property
    def ignore_index(self) -> int:
        """The index of ignored pixels in memory: 255, or 65535 for more than 255 classes."""
        return 255 if self.num_classes <= 255 else 65535

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integer type for all class indices and the ignore index."""
        return np.dtype(np.uint8 if self.num_classes <= 255 else np.uint16)

    def encode(self, ids: NDArray[Any]) -> tuple[NDArray[Any], dict[int, int]]:
        """Convert ids of a file to class indices.

        Args:
            ids: integer array (*S).

        Returns:
            The indices (*S) as `dtype`, and the unknown ids with their pixel counts. Pixels with unknown ids get the ignore
            index; the caller decides whether they are an error.
        """
        if ids.dtype == np.uint8 and self.dtype == np.uint8:
            indices = self._encode_bytes(ids)
            if indices is not None:
                return indices, {}
        values, inverse, counts = _unique(ids)
        table = {i: k for k, i in enumerate(self.ids)}
        ignored = set(self.ignore_ids or ())
        lut = np.full(len(values), self.ignore_index, self.dtype)
        unknown: dict[int, int] = {}
        for position in np.flatnonzero(counts).tolist():
            value = int(values[position])
            if value in table:
                lut[position] = table[value]
            elif value not in ignored:
                unknown[value] = int(counts[position])
        return lut[inverse].reshape(ids.shape), unknown

    def _encode_bytes(self, ids: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Convert 8-bit ids, about five times as fast as the general case; None if there are unknown ids."""
        table, unknown = bytearray([self.ignore_index] * 256), bytearray([1] * 256)
        for index, id_ in enumerate(self.ids):
            if id_ < 256:
                table[id_], unknown[id_] = index, 0
        for id_ in self.ignore_ids or ():
            if 0 <= id_ < 256:
                unknown[id_] = 0
        stored = ids.tobytes()
        if 1 in stored.translate(unknown):
            return None
        return np.frombuffer(bytearray(stored.translate(table)), np.uint8).reshape(ids.shape)

    def decode(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Convert class indices to ids of a file; ignored pixels become the first ignored id.

        Args:
            indices: integer array (*S) of class indices.

        Returns:
            Array (*S) of uint8, uint16 or int32, the smallest type for all ids.

        Raises:
            LabelsError: there are ignored pixels, but no id for them.
        """
        if not self.ignore_ids and (indices >= self.num_classes).any():
            raise LabelsError(
                "labels.ignore_index",
                expected="an id for ignored pixels",
                found="none",
                do="Set ignore_index to an id that is not a class.",
            )
        ignored = self.ignore_ids[0] if self.ignore_ids else self.ids[0]
        top = max(*self.ids, ignored)
        dtype = np.uint8 if top < 256 else np.uint16 if top < 65536 else np.int32
        lut = np.full(self.ignore_index + 1, ignored, dtype)
        lut[: self.num_classes] = self.ids
        return lut[indices]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as in `labels.yaml`, `config.yaml` and `model.json`."""
        return {
            "names": list(self.names),
            "ids": list(self.ids),
            "colours": [list(c) for c in self.colours],
            "countable": list(self.countable),
            "ignore_index": list(self.ignore_ids or ()),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any] | Sequence[str], where: str = "labels") -> Labels:
        """Read the plain form: a list of names, or a mapping with `names` and optionally the other fields.

        `names` may also be a mapping from id to name, and `ignore_index` one id or a list.

        Raises:
            LabelsError: unknown keys or invalid values.
        """
        if isinstance(plain, str) or not isinstance(plain, Mapping | Sequence):
            raise LabelsError(
                where,
                expected="a list of class names, or a mapping with `names`",
                found=repr(plain),
                do="Write names: [a, b].",
            )
        data = dict(plain) if isinstance(plain, Mapping) else {"names": list(plain)}
        names, ids = _names_and_ids(data.pop("names", None), data.pop("ids", None), where)
        ignore = data.pop("ignore_index", None)
        colours: Any = data.pop("colours", None) or data.pop("colors", None) or ()
        countable: Any = data.pop("countable", None) or ()
        if data:
            raise LabelsError(
                where,
                expected="names, and optionally ids, colours, countable, ignore_index",
                found=", ".join(map(str, data)),
                do="Correct the key.",
            )
        ignore_ids = None if ignore is None else tuple(ignore) if isinstance(ignore, list | tuple) else (ignore,)
        try:
            return cls(names, ids, tuple(colours), tuple(countable), ignore_ids)
        except TypeError as error:
            raise LabelsError(where, expected="one entry per class", found=str(error), do="Write a list.") from error
        except LabelsError as error:
            key = f"{where}: {error.where.removeprefix('labels.')}"
            raise LabelsError(key, expected=error.expected, found=error.found, do=error.do) from error


def _names_and_ids(names: Any, ids: Any, where: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Read a list of names, or a mapping from id to name.

    YAML parses `no` as false and `null` as None, which are not valid names.
    """
    if isinstance(names, Mapping) and ids is None:
        ids, names = tuple(names.keys()), tuple(names.values())
    if not isinstance(names, list | tuple) or not names:
        raise LabelsError(
            where,
            expected="`names` with a list of class names",
            found="none" if not names else repr(names),
            do="Add names: [a, b].",
        )
    invalid = [name for name in names if isinstance(name, bool | list | tuple | dict) or name is None or name == ""]
    if invalid:
        raise LabelsError(where, expected="class names", found=repr(invalid[0]), do="Put the name in quotes.")
    if ids is not None and not isinstance(ids, list | tuple):
        raise LabelsError(where, expected="`ids` with a list of numbers", found=repr(ids), do="Write ids: [0, 1].")
    return tuple(map(str, names)), tuple(ids or ())


def _unique(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Compute `np.unique` with inverse and counts; small ids are not sorted, and include values with a count of 0."""
    flat = ids.reshape(-1)
    if flat.size and flat.dtype.kind in "ui" and int(flat.min()) >= 0 and int(flat.max()) < 65536:
        counts = np.bincount(flat)
        return np.arange(len(counts)), flat, counts
    present, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    return present, inverse, counts


def _integer(value: Any, key: str) -> int:
    try:
        if not isinstance(value, bool):
            return int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        pass
    raise LabelsError(f"labels.{key}", expected="integers", found=repr(value), do="Correct the value.")


def _colour(value: Any) -> Colour:
    colour = () if isinstance(value, str) or not hasattr(value, "__iter__") else tuple(value)
    if len(colour) != 3 or not all(0 <= _integer(v, "colours") <= 255 for v in colour):
        raise LabelsError(
            "labels.colours", expected="three values 0–255 per class", found=str(value), do="Correct the colour."
        )
    return _integer(colour[0], "colours"), _integer(colour[1], "colours"), _integer(colour[2], "colours")
