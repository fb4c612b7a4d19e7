"""YOLO segmentation, as Ultralytics, Roboflow, CVAT and Label Studio write it: one text file per image.

A line is `class x1 y1 x2 y2 …`, in fractions of width and height. The text file has the path of the image with the last
images/ replaced by labels/; an image with an empty or missing text file is background. A YAML lists the splits and class
names; without one, folders and classes.txt are used. Smaller shapes are on top. Nothing is downloaded.

Rings joined by bridges of zero width (Ultralytics' `merge_multi_segment`) need no special treatment: the edges of a bridge
are crossed twice, which the even-odd rule ignores. Holes are written in the same way.

Source: docs.ultralytics.com/datasets/segment, and ultralytics 8.3, `data/utils.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.formats.annotated_images import AnnotatedImage, background, export_copy, found_images
from pixelwise.formats.base import ExportImage, Format, ReadResult, drawn_labels
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder
from pixelwise.formats.records import SPLITS, Problem, short
from pixelwise.formats.shapes import Polygon
from pixelwise.formats.yolo_description import Description, describe, yaml_files
from pixelwise.geometry.contours import join_holes, trace
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.safe_reading import decode, describe_unreadable, read_text
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_TOLERANCE = 0.01  # as in Ultralytics: rounding can move points slightly outside the image
_MAX_PROBED_FILES = 20
_PROBED_BYTES = 200_000
_DIGITS = 8  # rounding errors stay far below half a pixel
_YAML_NAME = "dataset.yaml"  # data.yaml is pixelwise's own
_CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
# Each number can match in only one way, so a long line that does not match fails in linear time.
_LINE = re.compile(r"\s*\d+(\.0*)?(\s+[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?){4,}\s*")

Row = tuple[int, Polygon]


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise a YAML with splits and names, or text files with a class and fractions in each line."""
    for path in yaml_files(dataset):
        return f"{short(path, dataset.root)} lists splits and classes"
    texts = _texts(dataset)
    paths = (label_path(image, dataset.root) for image in dataset.images.paths) if texts else iter(())
    labels = (texts[path] for path in paths if path in texts)
    for path in islice(filter(_is_filled, labels), _MAX_PROBED_FILES):
        if _looks_like_labels(path):
            return f"{short(path, dataset.root)} has classes and coordinates"
    return None


def read(dataset: DatasetRoot) -> ReadResult:
    """Find the images of each split, and read the text file of each image.

    Raises:
        MaskError: a line that is not a polygon in fractions, such as a box for detection.
        LabelsError: invalid class names.
        PairingError: an image in two splits.
        DataError: no images at a path in the YAML, or no text files.
    """
    reader = _Reader(dataset, describe(dataset))
    split_of_image = reader.splits()
    reader.report_unmatched()
    annotations = reader.annotations(split_of_image)
    names = reader.description.names
    if names is None:
        used = {kind for *_, rows in annotations for kind, _ in rows}
        names = {kind: f"class_{kind}" for kind in sorted(used)}
        reader.notices.append("the classes have no names: they are called class_0, class_1, …; add a classes.txt")
    labels = drawn_labels(dataset, names.values(), ids=[kind + 1 for kind in names])
    images = [
        AnnotatedImage(image, path, split_of_image[image], None, [(names[kind], polygon, 0) for kind, polygon in rows])
        for image, path, rows in annotations
    ]
    notices = (*reader.description.notices, *reader.notices)
    return found_images(dataset, "YOLO label files", images, labels, reader.problems, notices, overlap="area")


def label_path(image: Path, root: Path) -> Path:
    """Return the path of an image's text file: the last images/ below the root becomes labels/."""
    folders = list((image.relative_to(root) if image.is_relative_to(root) else image).parent.parts)
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return root.joinpath(*folders, image.with_suffix(".txt").name)


def _texts(dataset: DatasetRoot) -> dict[Path, Path]:
    """Return the text files by their path with the suffix in lower case: .TXT is one, too."""
    files = (path for path in dataset.files if path.suffix.lower() == ".txt")
    return {path.with_suffix(".txt") if path.suffix != ".txt" else path: path for path in files}


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _looks_like_labels(path: Path) -> bool:
    """Check the first line: a class and numbers, which outside of labels/ must be fractions, unlike other tables."""
    try:
        with path.open("rb") as file:
            line = decode(file.read(_PROBED_BYTES))[0].partition("\n")[0]
    except (OSError, UnicodeError):
        return False
    if _LINE.fullmatch(line) is None:
        return False
    return "labels" in path.parts or max(map(float, line.split()[1:])) <= 1 + _TOLERANCE


# Images and text files -----------------------------------------------------------------------------------------------


class _Reader:
    """Find the images of each split and read their text files; collect problems and notices."""

    def __init__(self, dataset: DatasetRoot, description: Description) -> None:
        self.dataset = dataset
        self.description = description
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self._texts = _texts(dataset)
        self._orphans: list[Path] = []  # label files without an image
        self._images = frozenset(dataset.images.paths)
        self._paths = set(self._texts).union(*(image.parents for image in self._images))

    def splits(self) -> dict[Path, str]:
        """Return the split of each image: according to the YAML, else to the folders."""
        images = self.dataset.images.paths
        if not images:
            do = "Put them there, or set their folder: --set data.root=FOLDER."
            raise DataError(self.dataset.root, expected="images", found="none", do=do)
        if not self.description.splits:
            return self._splits_of_folders()
        chosen: dict[Path, str] = {}
        for split, entries in self.description.splits.items():
            named = dict.fromkeys(image for entry in entries for image in self._named(split, entry))
            self._add_split(chosen, split, list(named))
        rest = len(set(images) - set(chosen))
        if rest:
            source = self.description.file.name
            self.notices.append(f"{rest} of {len(images)} images are in no split of {source} and are left out")
            self._account_for(set(images) - set(chosen))
        return chosen

    def _splits_of_folders(self) -> dict[Path, str]:
        """Use all images of each folder with a text file: those without one are background."""
        root = self.dataset.root
        labels = {image: label_path(image, root) for image in self.dataset.images.paths}
        folders = {label.parent for label in labels.values() if label in self._texts}
        chosen = {i: split_of_folder(i, root) or "pool" for i, label in labels.items() if label.parent in folders}
        if not chosen:
            raise self._no_texts(next(iter(labels)))
        rest = len(labels) - len(chosen)
        if rest:
            self.notices.append(f"{rest} of {len(labels)} images are in folders without label files and are left out")
            self._account_for(labels.keys() - chosen.keys())
        return chosen

    def _account_for(self, images: Iterable[Path]) -> None:
        """Note images that a notice is about, with their text files."""
        for image in images:
            self.dataset.use(image, self._texts.get(label_path(image, self.dataset.root), image))

    def _add_split(self, chosen: dict[Path, str], split: str, images: list[Path]) -> None:
        """Add images to a split, unless none of them is labelled or they are the same as those of train."""
        if images and not any(label_path(image, self.dataset.root) in self._texts for image in images):
            if split == "train":
                raise self._no_texts(images[0])
            self.notices.append(f"none of the {len(images)} images of {split} has a label file: {split} is left out")
            self._account_for(images)
        elif images and set(images) == set(chosen) and set(chosen.values()) == {"train"}:
            self.notices.append(f"{split} lists the same images as train and is left out")
        else:
            for image in images:
                if chosen.setdefault(image, split) != split:
                    found = f"{short(image, self.dataset.root)} in {chosen[image]} and {split}"
                    do = "Remove it from one of them."
                    raise PairingError(self.description.file, expected="every image in one split", found=found, do=do)

    def _named(self, split: str, entry: str) -> list[Path]:
        """Return the images of an entry: those in a folder, or those in a list."""
        root = self.dataset.root
        path, is_exact = self._locate(entry)
        if path is None:
            if split == "train":
                do = "Correct it, or set the data set's folder: --set data.root=FOLDER."
                where = f"{self.description.file}: {split}"
                raise DataError(where, expected=f"images at {entry}", found=f"no such path in {root}", do=do)
            self.notices.append(f"there are no images at {entry}: it is left out of {split}")
            return []
        if not is_exact:
            self.notices.append(f"{entry} is read as {short(path, root)}")
        if path not in self._texts:
            return [image for image in self.dataset.images.paths if image.is_relative_to(path)]
        images = []
        self.dataset.use(self._texts[path])
        for line in filter(None, map(str.strip, read_text(self._texts[path]).splitlines())):
            exact = (base / line.replace("\\", "/") for base in (self.description.home, path.parent))
            image = next(filter(self._images.__contains__, exact), None) or self.dataset.images.find(line, path)
            if isinstance(image, Path):
                images.append(image)
            else:
                self.problems.append(Problem(f"{short(path, root)}: {line}", f"listed, but {image}"))
        return images

    def _locate(self, entry: str) -> tuple[Path | None, bool]:
        """Find the folder or list of an entry below the root by the end of its path; and whether the whole path matches.

        Paths from other machines are common, and Roboflow writes `../train/images` for `train/images`.
        """
        names = [name for name in PurePosixPath(entry.replace("\\", "/")).parts if name not in ("/", ".", "..")]
        for start in range(max(len(names), 1)):
            for base in (self.description.home, self.dataset.root):
                path = base.joinpath(*names[start:])
                if path in self._paths:
                    return path, start == 0
        return None, False

    def _no_texts(self, image: Path) -> DataError:
        example = short(label_path(image, self.dataset.root), self.dataset.root)
        do = "Put labels/ next to images/; if these are masks, use another format: --set data.format=masks."
        expected = f"text files with polygons for the images, such as {example}"
        return DataError(self.dataset.root, expected=expected, found="none", do=do)

    def report_unmatched(self) -> None:
        """Add problems for text files without an image: all in labels/, and others that look like label files."""
        root = self.dataset.root
        images = (path for path in self.dataset.files if path.suffix.lower() in IMAGE_SUFFIXES)
        unmatched = self._texts.keys() - {label_path(image, root) for image in images}
        for path in sorted(self._texts[path] for path in unmatched if path.name not in _CLASS_LISTS):
            if "labels" in path.relative_to(root).parts or _looks_like_labels(path):
                self.problems.append(Problem(short(path, root), "label file without its image"))
                self._orphans.append(path)

    def annotations(self, images: Iterable[Path]) -> list[tuple[Path, Path, list[Row]]]:
        """Read the text file of each image: image, text file, and rows."""
        root = self.dataset.root
        found: list[tuple[Path, Path, list[Row]]] = []
        errors: list[MaskError] = []
        labels = {image: label_path(image, root) for image in images}
        sharing = Counter(labels.values())
        missing = [image for image, label in labels.items() if label not in self._texts]
        for image, label in labels.items():
            if sharing[label] > 1:  # it cannot be told to which of them the label file belongs
                self.problems.append(
                    Problem(short(image, root), f"one of {sharing[label]} images of {short(label, root)}")
                )
            elif label not in self._texts:
                if not self._orphans:
                    found.append((image, label, []))
            else:
                try:
                    found.append((image, self._texts[label], _rows(self.dataset, self._texts[label], self.description)))
                except MaskError as error:
                    if not self.dataset.config.skip_bad:
                        raise
                    errors.append(error)
                    self.dataset.use(self._texts[label])
        if errors and not any(rows for *_, rows in found):
            raise errors[0]  # a data set for another task: no file can be used
        self.problems += [Problem.from_error(error, do=error.do) for error in errors]
        if missing and not self._orphans:
            self.notices.append(f"{len(missing)} of {len(labels)} images have no label file: they are background")
        elif missing:
            why = f"no label file; {short(self._orphans[0], root)} or another without its image may belong to it"
            self.problems += [Problem(short(image, root), why) for image in missing]
        return found


def _rows(dataset: DatasetRoot, path: Path, description: Description) -> list[Row]:
    try:
        text = dataset.decode(path)
    except (OSError, UnicodeError) as error:
        found = describe_unreadable(error)
        raise MaskError(path, expected="a text file in UTF-8", found=found, do="Export it again.") from error
    lines = enumerate(text.splitlines(), 1)
    return [_row(f"{path}:{number}", line, description) for number, line in lines if line.strip()]


def _row(where: str, line: str, description: Description) -> Row:
    """Read `class x1 y1 x2 y2 …`. Points slightly outside the image are clipped when the polygon is filled."""

    def invalid(found: str, do: str, expected: str = "a polygon: class x1 y1 x2 y2 x3 y3 …") -> MaskError:
        return MaskError(where, expected=expected, found=found, do=do)

    names = description.names
    try:
        values = np.array(line.split(), np.float64)
    except ValueError:
        raise invalid(repr(line.strip()[:60]), "Correct the line, or export it again.") from None
    kind, points = values[0], values[1:]
    if not np.isfinite(values).all():
        raise invalid("NaN or infinity", "Correct the line, or export it again.")
    if kind != round(kind) or kind < 0 or (names is not None and kind not in names):
        of_names = f"{_ranges(names)}, as in {description.file.name}" if names is not None else "0, 1, 2, …"
        raise invalid(f"{kind:g}", "Correct the line, or add the class to the names.", f"a class id {of_names}")
    if len(points) == 4:
        do = "Draw polygons, or export the data set for segmentation; --skip-bad leaves such images out."
        raise invalid("a box (class cx cy w h), as for detection", do)
    if len(points) % 2 or len(points) < 6:
        found = f"{len(points)} coordinates" if len(points) % 2 else f"{len(points) // 2} points"
        raise invalid(found, "Correct the line, or remove it.")
    worst = points[np.argmax(np.abs(points - 0.5))]
    if abs(worst - 0.5) > 0.5 + _TOLERANCE:
        do = "Divide x by the image's width and y by its height."
        raise invalid(f"{worst:g}, as in pixels" if worst > 2 else f"{worst:g}", do, "coordinates as fractions, 0…1")
    return int(kind), Polygon((points.reshape(-1, 2),), relative=True)


def _ranges(ids: Collection[int]) -> str:
    is_gapless = len(ids) > 1 and max(ids) - min(ids) == len(ids) - 1
    return f"{min(ids)}–{max(ids)}" if is_gapless else ", ".join(map(str, islice(ids, 12))) or "(there are none)"


# Writing -------------------------------------------------------------------------------------------------------------


class _Writer:
    """Write images/ and labels/ with a folder for each split, and a YAML for Ultralytics."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out = out
        self.labels = labels
        self.unlabelled = background(labels)[0]
        self.kinds = {name: kind for kind, name in enumerate(n for n in labels.names if n != self.unlabelled)}
        self.splits: set[str] = set()

    def add(self, image: ExportImage) -> Path:
        """Copy the image, and write one ring for each region that is not background, the largest first."""
        target = export_copy(image, self.out / "images")
        self.splits.add(image.split)
        kinds = np.full(self.labels.ignore_index + 1, -1)
        kinds[: self.labels.num_classes] = [self.kinds.get(name, -1) for name in self.labels.names]
        mask = kinds[image.mask]
        is_background = mask < 0
        lines = []
        for contour in trace(mask):
            if contour.id >= 0:
                points = join_holes(contour, is_background) / image.mask.shape[::-1]
                numbers = (f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".") for value in points.reshape(-1).tolist())
                lines.append(f"{contour.id} {' '.join(numbers)}\n")
        write_atomic(label_path(target, self.out), "".join(lines))
        return target

    def close(self) -> dict[str, Any]:
        """Write the YAML, without `path`, so that paths are relative to the YAML."""
        content: dict[str, Any] = {split: f"images/{split}" for split in SPLITS if split in self.splits}
        content["names"] = {kind: name for name, kind in self.kinds.items()}
        write_atomic(self.out / _YAML_NAME, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        return {"format": "yolo", "annotations": _YAML_NAME, "unlabelled": self.unlabelled}


FORMAT = Format(
    "yolo",
    "YOLO segmentation",
    detect,
    read,
    _Writer,
    "ignored pixels become background if there is such a class; holes are joined to the contour by bridges of zero width,"
    " which some tools draw as a line",
)
