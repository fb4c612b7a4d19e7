"""Steps that the readers and writers of annotation tools share: match annotations to images, make records, copy images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.formats.base import IGNORED, ExportImage, ReadResult, copy_image, shape_name
from pixelwise.formats.dataset_root import DatasetRoot, make_layout
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import Drawing, Overlap, Region, Shape
from pixelwise.labels import BACKGROUNDS, Labels

NamedRegion = tuple[str, Region, int]  # class name, region, level (see `shapes.Shape`)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with the shapes of its annotation, in the order of the file."""

    image: Path
    file: Path  # with the annotation
    split: str | None  # "train", "val" or "test"; None if no name indicates one
    size: tuple[int, int] | None  # (H, W) according to the annotation; None if not given
    shapes: Sequence[NamedRegion]


class ImageMatcher:
    """Assign images to annotations, at most one annotation each, and collect the problems.

    An annotation that cannot be assigned must not become background: every image that it may belong to is left out.
    """

    def __init__(self, dataset: DatasetRoot) -> None:
        self.dataset = dataset
        self.problems: list[Problem] = []
        self._owners: dict[Path, str] = {}
        self._contested: dict[Path, str] = {}  # images that another annotation may belong to, which is a problem

    def add_problem(self, where: Path | str, why: str) -> None:
        """Record a problem; a path is shown relative to the root."""
        self.problems.append(Problem(short(where, self.dataset.root) if isinstance(where, Path) else where, why))

    def claim(
        self,
        image: Path | str,
        where: str,
        owner: str | None = None,
        hint: str = "",
        candidates: Iterable[Path] = (),
    ) -> Path | None:
        """Assign an image to an annotation.

        Args:
            image: the image file; or why none was found, which becomes a problem.
            where: the annotation, for problems.
            owner: what problems call it if the image is claimed again; `where` by default.
            hint: added to the reason why no image was found.
            candidates: the images that the annotation may belong to if `image` is a reason.

        Returns:
            The image; None if it was not assigned, and a problem recorded instead.
        """
        if isinstance(image, str):
            self.add_problem(where, f"annotation without its image ({image}{hint})")
            self.leave_out(candidates, where)
        elif image in self._owners:
            self.add_problem(where, f"second annotation of {image.name} (also {self._owners[image]})")
            self._contested.setdefault(image, "")
        else:
            self._owners[image] = owner or where
            return image
        return None

    def leave_out(self, images: Iterable[Path], where: str) -> None:
        """Leave out the images that an annotation may belong to; `where` is the annotation."""
        self._contested |= dict.fromkeys(images, where)

    def kept(self, images: Iterable[AnnotatedImage]) -> list[AnnotatedImage]:
        """Return the images without those that several annotations may belong to."""
        return [image for image in images if image.image not in self._contested]

    def skip(self, error: DataError, where: Path | None = None) -> None:
        """Record an error as a problem if `data.skip_bad` is set.

        Raises:
            DataError: `error`, if it is not set.
        """
        if not self.dataset.config.skip_bad:
            raise error
        self.problems.append(Problem.from_error(error, short(where, self.dataset.root) if where else ""))

    def finish(self) -> list[Problem]:
        """Return all problems, including those of images without an annotation."""
        for image in self.dataset.images.paths:
            if image not in self._owners:
                self.add_problem(image, "image without a mask")
            elif self._contested.get(image):
                self.add_problem(image, f"image that another annotation may belong to ({self._contested[image]})")
        return self.problems


def class_names(images: Iterable[AnnotatedImage]) -> set[str]:
    """Return the names of the classes that occur."""
    return {name for image in images for name, *_ in image.shapes}


def found_images(
    dataset: DatasetRoot,
    title: str,
    images: Iterable[AnnotatedImage],
    labels: tuple[Labels, str | None],
    problems: Iterable[Problem],
    notices: Iterable[str] = (),
    overlap: Overlap = "file",
) -> ReadResult:
    """Make the records of annotated images.

    Args:
        dataset: the data set.
        title: the kind of annotations, for the layout.
        images: in order.
        labels: the labels, and the class of pixels without a shape (see `base.drawn_labels`).
        problems: files that cannot be used.
        notices: decisions made while reading.
        overlap: the default of `data.overlap`.
    """
    records: dict[str, list[Record]] = defaultdict(list)
    for image in images:
        shapes = tuple(Shape(shape_name(dataset, name), region, level) for name, region, level in image.shapes)
        drawing = Drawing(image.file, shapes, image.size, labels[1], dataset.config.overlap or overlap)
        record = Record(dataset.images.id_of(image.image), image.image, image.file, source=drawing)
        records[image.split or "pool"].append(record)
    return ReadResult(make_layout(title, records, problems, notices), labels[0])


def shape_notices(
    images: Sequence[AnnotatedImage], unlabelled: str | None, without_area: Iterable[Counter[str]] = ()
) -> list[str]:
    """Describe annotations that cover no pixels, and images without shapes."""
    notices = []
    counts = sum(without_area, Counter[str]())
    if counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        notices.append(f"not drawn, because they cover no pixels: {kinds}")
    empty = sum(not image.shapes for image in images)
    if empty:
        notices.append(
            f"{empty} of {len(images)} images have no shapes: all their pixels are {unlabelled or 'ignored'}"
        )
    return notices


def describe(error: Exception) -> str:
    """Describe an exception from malformed values on one line."""
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]


def background(labels: Labels) -> tuple[str, int]:
    """Return the class that needs no shapes when a mask is written.

    Returns:
        The value of `data.unlabelled` that reads it back ("ignore" if no class is a background), and its value in masks.
    """
    for name in BACKGROUNDS:
        if name in labels.names:
            return name, labels.names.index(name)
    return "ignore", labels.ignore_index


def value_names(labels: Labels) -> dict[int, str]:
    """Map the values of masks to class names, and the ignore index to `IGNORED`."""
    return {**dict(enumerate(labels.names)), labels.ignore_index: IGNORED}


def export_copy(exported: ExportImage, folder: Path) -> Path:
    """Copy an image to FOLDER/SPLIT/ID.SUFFIX and return the path."""
    target = folder / exported.split / f"{exported.id}{exported.image.suffix.lower()}"
    copy_image(exported, target)
    return target
