"""Images by address: an annotation tool on a server keeps URLs where a folder has files.

Comes in: a place, and an address as the tool wrote it. Goes out: the image that is meant. Knows nothing of JSON or tasks. No
address is ever followed: its end is looked for among the files below the root.

Label Studio serves files of its own disk as `/data/local-files/?d=folder/name.jpg`, and keeps an upload under its name with
eight digits and a dash before it, blanks as underlines, and without other signs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from pixelwise.formats.dataset_root import DatasetRoot

NOTHING = "no such image"
_UPLOAD = re.compile("[0-9a-f]{8}-(?=.)")


class Addresses:
    """Find images by the addresses that a tool gives them."""

    def __init__(self, place: DatasetRoot) -> None:
        self.place = place
        self._known = frozenset(place.images.paths)
        self._kept: dict[str, list[Path]] = defaultdict(list)
        for path in place.images.paths:
            self._kept[re.sub(r"[^-\w.]", "", path.name.strip().replace(" ", "_"))].append(path)

    def find(self, addresses: Iterable[str], near: Path) -> Path | str:
        """Find an image.

        Args:
            addresses: what is known of it, the surest first.
            near: the annotation file; names may be relative to it.

        Returns:
            The image; or why there is none, in words.

        """
        why = NOTHING
        names = [name for address in addresses if address for name in ends(address)]
        for name in names:
            exact = near.parent / name
            found = exact if exact in self._known else self.place.images.find(name, near)
            if isinstance(found, Path):
                return found
            why = found if why == NOTHING else why
        last = [name.rpartition("/")[2] for name in names if _is_upload(name)]
        kept = [path for name in last if _UPLOAD.match(name) for path in self._kept.get(_UPLOAD.sub("", name, 1), [])]
        return kept[0] if len(set(kept)) == 1 and why == NOTHING else why


def ends(address: str) -> list[str]:
    """Give the names that an address may mean, the likeliest first: decoded, as it stands, and as it was before the upload."""
    asked = re.search(r"[?&]d=([^&]*)", address)
    path = asked[1] if asked else address.split("?", 1)[0]
    names = []
    for name in (unquote(path, errors="surrogateescape").replace("\\", "/"), path):
        folder, slash, last = name.rpartition("/")
        names += [name, f"{folder}{slash}{_UPLOAD.sub('', last, 1)}"] if _is_upload(name) else [name]
    return list(dict.fromkeys(names))


def _is_upload(name: str) -> bool:
    """Tell whether a name may be that of an upload: elsewhere eight digits and a dash are a date, say."""
    return "upload/" in name or "/" not in name
