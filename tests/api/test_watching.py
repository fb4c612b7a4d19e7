"""A watched folder: each image is predicted once, when it is complete, also after a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.inference.backends import predictor_of

from pixelwise.api.predicting import Outputs, watch_folder
from pixelwise.errors import Interrupted, OutputExistsError, UsageError
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels


class Counting:
    """Logits by which everything brighter than 100 is the second class; images are counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        self.count += len(images)
        values = np.asarray(images, np.float32)[:, :1]
        return np.concatenate([np.full_like(values, 100), values], 1)


def put(path: Path, value: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 9, 3), value, np.uint8)).save(path)


def watch(folder: Path, out: Path, *events: Callable[[], None], **options: Any) -> tuple[int, list[str]]:
    """Watch for as many looks as there are events, each of which happens after a look; return what was computed and known."""
    backend, waiting = Counting(), [*events]

    def stop() -> bool:
        if not waiting:
            return True
        waiting.pop(0)()
        return False

    by: Predictor = predictor_of(backend, Labels(("dark", "bright")), channels=3)
    result = watch_folder(by, folder, out, interval=0.0, stop=stop, **options)
    return backend.count, [entry["mask"] for entry in result.images]


def nothing() -> None:
    pass


def test_images_are_predicted_as_they_arrive_each_once(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    put(folder / "a.png")
    count, masks = watch(folder, out, nothing, lambda: put(folder / "x" / "b.png"), nothing, nothing, nothing)
    assert (count, masks) == (2, ["masks/a.png", "masks/x/b.png"])
    assert np.asarray(Image.open(out / "masks" / "x" / "b.png")).max() == 1
    plain = json.loads((out / "predictions.json").read_bytes())
    assert len(plain["images"]) == 2


def test_after_a_restart_only_new_images_are_predicted(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    put(folder / "a.png")
    assert watch(folder, out, nothing, nothing)[0] == 1
    put(folder / "b.png")
    count, masks = watch(folder, out, nothing, nothing)
    assert (count, masks) == (1, ["masks/a.png", "masks/b.png"])
    assert watch(folder, out, nothing, nothing) == (0, ["masks/a.png", "masks/b.png"])


def test_an_image_that_is_still_growing_is_left_until_it_is_complete(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    put(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    folder.mkdir()
    pieces = [content[:20], content[:40], content]
    events = [lambda piece=piece: (folder / "a.png").write_bytes(piece) for piece in pieces]
    count, masks = watch(folder, out, *events, nothing, nothing)  # type: ignore[arg-type]
    assert (count, masks) == (1, ["masks/a.png"])
    assert json.loads((out / "predictions.json").read_bytes())["failed"] == []


def test_a_replaced_image_is_predicted_again(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    put(folder / "a.png")

    def replace_it() -> None:
        time.sleep(0.01)
        put(folder / "a.png", 10)

    count, masks = watch(folder, out, nothing, nothing, replace_it, nothing, nothing)
    assert (count, masks) == (2, ["masks/a.png"])
    assert np.asarray(Image.open(out / "masks/a.png")).max() == 0


def test_a_file_that_cannot_be_read_is_reported_once(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    put(folder / "b.png")
    assert watch(folder, out, *[nothing] * 5) == (1, ["masks/b.png"])
    assert len(json.loads((out / "predictions.json").read_bytes())["failed"]) == 1


def test_results_inside_the_folder_are_not_predicted(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png")
    assert watch(tmp_path / "in", tmp_path / "in" / "out", *[nothing] * 5)[0] == 1


def test_ctrl_c_keeps_what_was_predicted(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="1 files are predicted"):
        watch(tmp_path / "in", tmp_path / "out", nothing, nothing, interrupt)
    assert watch(tmp_path / "in", tmp_path / "out", nothing, nothing) == (0, ["masks/a.png"])


def test_another_call_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png")
    watch(tmp_path / "in", tmp_path / "out", nothing, nothing)
    with pytest.raises(OutputExistsError, match="unfinished prediction with the same overlays"):
        watch(tmp_path / "in", tmp_path / "out", nothing, outputs=Outputs(overlays=False))


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a folder to watch, found nothing"):
        watch(tmp_path / "in", tmp_path / "out")
