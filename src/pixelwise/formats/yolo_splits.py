"""Where the images of a YOLO data set are, which part each is in, and what the classes are called.

Comes in: a place. Goes out: what its YAML says, where there is one; the part of every image; the place of its text file.
Knows nothing of what stands in the text files.

A path in a YAML is matched by its end with folders below the root, so that it can be of another machine, and can lead nowhere
else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pixelwise.config import is_yolo, read_yaml, yolo_home
from pixelwise.errors import ConfigError, DataError, LabelsError, MaskError, PairingError
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder
from pixelwise.formats.records import SPLIT_FOLDERS, Problem, short
from pixelwise.imageio.safe_reading import read_text

CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_MOST_CLASSES = 65_535


@dataclass(frozen=True)
class Told:
    """Hold what the YAML of a set says, or where there is none, its list of classes.

    Args:
        file: which one it is; the root where there is neither.
        names: class id in the text files → name; None where nobody says.
        parts: part → folders of images, or lists of them; empty where folders tell.
        home: the folder that those start from.
        notices: what was decided on the way.

    """

    file: Path
    names: dict[int, str] | None
    splits: Mapping[str, list[str]]
    home: Path
    notices: tuple[str, ...] = ()


def label_path(image: Path, root: Path) -> Path:
    """Give the place of an image's text file: the last images/ below the root, or of a path elsewhere, becomes labels/."""
    folders = list((image.relative_to(root) if image.is_relative_to(root) else image).parent.parts)
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return root.joinpath(*folders, image.with_suffix(".txt").name)


def yamls(place: DatasetRoot) -> Iterator[Path]:
    """Find the YAML files of YOLO: those that `data.annotations` names, else those at the root."""
    for suffix in (".yaml", ".yml"):
        for path in place.annotations(suffix):
            if place.config.annotations is not None or path.parent == place.root:
                try:
                    found = is_yolo(read_yaml(path)[0])
                except ConfigError:
                    if place.config.format is not None and place.config.annotations is not None:
                        raise  # it was asked for
                    continue
                if found:
                    yield path


def describe(place: DatasetRoot) -> Told:
    """Read what the YAML says, else the list of classes and darknet's lists of images.

    Raises:
        ConfigError: several such YAML files, or entries that name no images.
        LabelsError: names that cannot be those of classes.
        MaskError: a set for another task.

    """
    files = list(yamls(place))
    if len(files) > 1:
        found = ", ".join(short(path, place.root) for path in files)
        do = f"Say which: --set data.annotations={short(files[0], place.root)}"
        raise ConfigError(place.root, expected="one YAML with parts and names", found=found, do=do)
    if not files:
        if place.config.annotations is not None:
            found = repr(place.config.annotations)
            do = "Name the YAML with `names` and `train`, or leave it out."
            raise ConfigError("data.annotations", expected="the YAML of a YOLO data set", found=found, do=do)
        return _without_yaml(place)
    file, plain = files[0], read_yaml(files[0])[0]
    _require_outlines(file, plain)
    splits: dict[str, list[str]] = {}
    for split, words in SPLIT_FOLDERS.items():
        given: Any = next((plain[word] for word in words if plain.get(word)), [])
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not all(isinstance(entry, str) for entry in given):
            expected = "a folder, a list of folders, or a .txt list of images"
            raise ConfigError(f"{file}: {split}", expected=expected, found=repr(given)[:80], do="Correct it.")
        if given:
            splits[split] = given
    names = _names(file, plain.get("names"), plain.get("nc"))
    return Told(file, names, splits, *_home(place, file, plain))


def _home(place: DatasetRoot, file: Path, plain: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
    """Find the folder that the paths in a YAML start from, and say so where it is not the YAML's own."""
    home = yolo_home(file, plain)
    inside = None if home is None else _inside(place, home)
    if home is None or inside is None:
        leads = "leads nowhere on this machine" if home is None else "is not in the data set's folder"
        told = f"`path` in {file.name} ({plain.get('path')}) {leads}: images are looked for below {place.root}"
        return _inside(place, file.parent) or place.root, (told,)
    if home != file.parent and inside == place.root:
        return inside, (f"images are read below {place.root}, as `path` in {file.name} says",)
    return inside, ()


def _inside(place: DatasetRoot, folder: Path) -> Path | None:
    """Name a folder as it lies below the root; None where it does not."""
    if folder.is_relative_to(place.root):
        return folder
    whole, root = folder.resolve(), place.root.resolve()
    return place.root / whole.relative_to(root) if whole.is_relative_to(root) else None


def _without_yaml(place: DatasetRoot) -> Told:
    """Take the names from a list of classes, and the parts from lists of images at the root, as darknet has them."""
    lists = [path for path in place.files if path.name in CLASS_LISTS or path.suffix == ".names"]
    texts = {path: read_text(path).rstrip() for path in lists}
    if len(set(texts.values())) > 1:
        found = ", ".join(short(path, place.root) for path in lists[:3])
        raise LabelsError(place.root, expected="one list of classes", found=found, do="Remove the wrong ones.")
    names = _names(lists[0], [line.strip() for line in texts[lists[0]].splitlines()], None) if lists else None
    splits: dict[str, list[str]] = {}
    for split, words in SPLIT_FOLDERS.items():
        files = [f"{word}.txt" for word in words if place.root / f"{word}.txt" in place.files]
        if files:
            splits[split] = files[:1]
    return Told(lists[0] if lists else place.root, names, splits if "train" in splits else {}, place.root)


def _require_outlines(file: Path, plain: Mapping[str, Any]) -> None:
    """Refuse the sets of other tasks, which have the same YAML."""
    if "kpt_shape" in plain:
        do = "Points are no segmentation: export the set as YOLO segmentation."
        raise MaskError(file, expected="a set for segmentation", found="kpt_shape, a set of key points", do=do)
    if "masks_dir" in plain:
        folder = str(plain["masks_dir"])
        do = "Read it as folders of masks: --set data.format=masks --set 'data.labels=[the names]'."
        raise MaskError(file, expected="text files with outlines", found=f"masks_dir {folder!r}, masks as PNG", do=do)


def _names(file: Path, given: Any, count: Any) -> dict[int, str] | None:
    """Read names as a list or a mapping from id to name; `nc` alone gives class_0, class_1 and so on."""
    if count is not None and (type(count) is not int or not 0 <= count <= _MOST_CLASSES):
        raise LabelsError(f"{file}: nc", expected="a number of classes", found=repr(count)[:40], do="Correct it.")
    if given is None:
        return None if count is None else {kind: f"class_{kind}" for kind in range(count)}
    if not isinstance(given, list | Mapping):
        raise LabelsError(
            f"{file}: names", expected="a list of names", found=repr(given)[:40], do="Write names: [a, b]."
        )
    rows = list(given.items() if isinstance(given, Mapping) else enumerate(given))
    names: dict[int, str] = {}
    seen: set[str] = set()
    for kind, name in rows:
        if not re.fullmatch(r"\d{1,6}", str(kind)):
            do = "Write 0: name."
            raise LabelsError(f"{file}: names", expected="whole numbers for the classes", found=repr(kind)[:40], do=do)
        if not isinstance(name, str | int | float) or isinstance(name, bool) or not str(name).strip():
            do = "Put the name in quotes."
            raise LabelsError(f"{file}: names", expected="names of classes", found=repr(name)[:40], do=do)
        if str(name) in seen or int(kind) in names:
            raise LabelsError(f"{file}: names", expected="every class once", found=f"{name!r} twice", do="Rename one.")
        seen.add(str(name))
        names[int(kind)] = str(name)
    if count is not None and count != len(names):
        do = "Correct nc, or add the names."
        raise LabelsError(f"{file}: nc", expected=f"{len(names)}, as there are names", found=str(count), do=do)
    return names


def choose(place: DatasetRoot, told: Told, texts: set[Path]) -> tuple[dict[Path, str], list[Problem], list[str]]:
    """Give each image its part: as the YAML says, else as its folders do; with problems and notices.

    Raises:
        DataError: no images where the YAML says, or not one of them has a text file.
        PairingError: an image in two parts.

    """
    if not place.images.paths:
        do = "Put them there, or say where they lie: --set data.root=FOLDER."
        raise DataError(place.root, expected="images", found="none", do=do)
    if not told.splits:
        return _by_folders(place, texts)
    choice = _Choice(place, told, texts)
    for split, entries in told.splits.items():
        choice.take(split, list(dict.fromkeys(image for entry in entries for image in choice.named(split, entry))))
    every = place.images.paths
    rest = len(set(every) - set(choice.chosen))
    if rest:
        told_of = f"{rest} of {len(every)} images are in no part that {told.file.name} names and are left out"
        choice.notices.append(told_of)
    return choice.chosen, choice.problems, choice.notices


def _by_folders(place: DatasetRoot, texts: set[Path]) -> tuple[dict[Path, str], list[Problem], list[str]]:
    """Take the images of every folder in which one has a text file: the others there have none since they show nothing."""
    labels = {image: label_path(image, place.root) for image in place.images.paths}
    homes = {label.parent for label in labels.values() if label in texts}
    chosen = {i: split_of_folder(i, place.root) or "pool" for i, label in labels.items() if label.parent in homes}
    if not chosen:
        raise _no_texts(place, next(iter(labels)))
    rest = len(labels) - len(chosen)
    told = f"{rest} of {len(labels)} images lie where no label files belong to them and are left out"
    return chosen, [], [told] if rest else []


class _Choice:
    """Collect the images of each part, as the entries of a YAML name them."""

    def __init__(self, place: DatasetRoot, told: Told, texts: set[Path]) -> None:
        self.place, self.told, self.texts = place, told, texts
        self.chosen: dict[Path, str] = {}
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self._images = frozenset(place.images.paths)
        folders = {image.parent for image in self._images}
        self._known = texts | {above for folder in folders for above in (folder, *folder.parents)}

    def take(self, split: str, own: list[Path]) -> None:
        """Put images into a part, save where nobody labelled it, or it is the train part once more."""
        if own and not any(label_path(image, self.place.root) in self.texts for image in own):
            if split == "train":
                raise _no_texts(self.place, own[0])
            self.notices.append(f"no image of {split} has a label file ({len(own)} looked at): the part is left out")
        elif own and set(own) == set(self.chosen) and set(self.chosen.values()) == {"train"}:
            self.notices.append(f"{split} names the same images as train, and is no part of its own")
        else:
            for image in own:
                if self.chosen.setdefault(image, split) != split:
                    found = f"{short(image, self.place.root)} in {self.chosen[image]} and {split}"
                    do = "Take it out of one of the two."
                    raise PairingError(self.told.file, expected="every image in one part", found=found, do=do)

    def named(self, split: str, entry: str) -> list[Path]:
        """Find the images that an entry means: those of a folder, or those that a list names."""
        spot, whole = self._spot(entry)
        if spot is None:
            if split == "train":
                found = f"nothing of that name below {self.place.root}"
                do = "Correct it, or say where the folders lie: --set data.root=FOLDER."
                raise DataError(f"{self.told.file}: {split}", expected=f"images at {entry}", found=found, do=do)
            self.notices.append(f"there are no images at {entry}: it is left out of {split}")
            return []
        if not whole:
            self.notices.append(f"{entry} is read as {short(spot, self.place.root)}")
        if spot not in self.texts:
            return [image for image in self.place.images.paths if image.is_relative_to(spot)]
        own = []
        for line in filter(None, map(str.strip, read_text(spot).splitlines())):
            exact = (base / line.replace("\\", "/") for base in (self.told.home, spot.parent))
            image = next(filter(self._images.__contains__, exact), None) or self.place.images.find(line, spot)
            if isinstance(image, str):
                self.problems.append(Problem(f"{short(spot, self.place.root)}: {line}", f"listed, but {image}"))
            else:
                own.append(image)
        return own

    def _spot(self, entry: str) -> tuple[Path | None, bool]:
        """Find the folder or list that an entry means by its end, never beyond the root; and whether all of it fits.

        Paths of other machines are common, and `../train/images` where `train/images` is meant (Roboflow's, which
        Ultralytics understands, too).
        """
        pieces = [name for name in PurePosixPath(entry.replace("\\", "/")).parts if name not in ("/", ".", "..")]
        for start in range(max(len(pieces), 1)):
            for base in (self.told.home, self.place.root):
                spot = base.joinpath(*pieces[start:])
                if spot in self._known:
                    return spot, start == 0
        return None, False


def _no_texts(place: DatasetRoot, image: Path) -> DataError:
    expected = f"a text file with outlines for the images, as {short(label_path(image, place.root), place.root)}"
    do = "Put labels/ beside images/; or name another format, if these are masks: --set data.format=masks."
    return DataError(place.root, expected=expected, found="none at all", do=do)
