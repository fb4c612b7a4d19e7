import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checking.drawn import draw_good, halves, save

from pixelwise.checking import Inspection, survey, take_survey
from pixelwise.checking.inspection import inspect_image
from pixelwise.checking.regions import Column
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data

LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> DataSplits:
    """Several chunks of images, with one invalid mask."""
    root = tmp_path_factory.mktemp("set")
    draw_good(root, (("train", 50), ("val", 21)))
    save(root / "train/masks/train07.png", halves(right=9))
    return open_data(DataConfig(), root)


def plain(one: Inspection) -> tuple[object, ...]:
    error = None if one.error is None else str(one.error)
    rest = [
        getattr(one, name)
        for name in ("split", "index", "size", "dtype", "digest", "signature", "spread", "mask_digest")
    ]
    return (error, *rest, one.table.tolist(), one.profiles.tolist(), one.unknown)


@pytest.mark.parametrize("method", ["fork", "spawn"] if LINUX else ["spawn"])
def test_processes_give_the_same_results_in_the_same_order(
    opened: DataSplits, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = take_survey(opened, workers=0)
    monkeypatch.setattr(survey, "multiprocessing", multiprocessing.get_context(method))
    calls: list[tuple[int, int]] = []
    together = take_survey(opened, lambda done, total: calls.append((done, total)), workers=2)
    assert [plain(one) for one in together.inspections] == [plain(one) for one in alone.inspections]
    assert [(one.split, one.index) for one in alone.inspections] == [
        (split.name, k) for split in opened for k in range(len(split))
    ]
    assert calls[-1] == (71, 71)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_small_data_sets_start_no_process(opened: DataSplits, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(survey, "ProcessPoolExecutor", refuse)
    monkeypatch.setattr(survey, "_SERIAL_SECONDS", 1000)
    assert len(take_survey(opened).inspections) == 71
    monkeypatch.setattr(survey, "_SERIAL_SECONDS", 0)
    monkeypatch.setattr(survey, "cores", lambda: 2)
    with pytest.raises(AssertionError, match="a process was started"):
        take_survey(opened)


def test_a_system_without_processes(opened: DataSplits, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no semaphores here")

    monkeypatch.setattr(survey, "ProcessPoolExecutor", refuse)
    assert len(take_survey(opened, workers=2).usable) == 70


@pytest.mark.parametrize("error", [BrokenProcessPool, BlockingIOError])
def test_a_broken_pool_loses_no_images(
    opened: DataSplits, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class Breaking:
        """Do the work immediately, and fail on the third chunk."""

        def __init__(self, *_: object, **__: object) -> None:
            self.taken = 0

        def submit(self, work: Any, piece: Any) -> Future[Any]:
            self.taken += 1
            if self.taken > 2:
                raise error("a process was killed")
            done: Future[Any] = Future()
            done.set_result(work(piece))
            return done

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr(survey, "ProcessPoolExecutor", Breaking)
    images = take_survey(opened, workers=2).inspections
    assert [(one.split, one.index) for one in images] == [
        (split.name, k) for split in opened for k in range(len(split))
    ]


def test_an_exception_of_the_caller_stops_the_processes(opened: DataSplits) -> None:
    def stop(done: int, _: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_survey(opened, stop, workers=2)
    deadline = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not multiprocessing.active_children()


def test_tables_and_images_are_summed_by_split(opened: DataSplits) -> None:
    taken = take_survey(opened, workers=0)
    for split in (None, "train", "val"):
        masks = [
            opened_part.read(k).mask
            for opened_part in opened
            if split in (None, opened_part.name)
            for k in range(len(opened_part))
            if (opened_part.name, k) != ("train", 7)
        ]
        assert taken.pixel_counts(split).tolist() == [
            sum(int((mask == k).sum()) for mask in masks) for k in (0, 1, 255)
        ]
        assert taken.image_counts(split).tolist() == [
            sum(bool((mask == k).any()) for mask in masks) for k in (0, 1, 255)
        ]
        assert taken.table(split)[:, Column.CLASS].tolist() == [0, 1, 2]
    assert (len(taken.usable), len(taken.in_split("train")), len(taken.in_split("val"))) == (70, 49, 21)
    assert taken.record(taken.inspections[60]).image.name == "val10.png"


def test_alignment_is_examined_for_some_images(opened: DataSplits, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(one.profiles.any() for one in take_survey(opened, workers=0).usable) == 70
    monkeypatch.setattr(survey, "_ALIGNED", 10)
    looked = [(one.split, one.index) for one in take_survey(opened, workers=0).usable if one.profiles.any()]
    assert looked == [(split, k) for split, last in (("train", 50), ("val", 21)) for k in range(0, last, 8)]


def test_inspections_are_small(opened: DataSplits) -> None:
    images = take_survey(opened, workers=0).usable
    assert len(pickle.dumps(images)) / len(images) < 1000
    for one in images:
        assert sum(array.nbytes for array in (one.table, one.profiles)) < 300


def test_a_missing_image_is_an_error(opened: DataSplits) -> None:
    split = opened.train
    assert split is not None
    record = split.records[3]
    content = record.image.read_bytes()
    record.image.unlink()
    try:
        inspected = inspect_image(split, 3)
    finally:
        record.image.write_bytes(content)
    assert inspected.digest == b""
    assert str(inspected.error).startswith(f"{record.image}: expected ")


CODE = """
import sys, time
from pathlib import Path
from pixelwise.config import DataConfig
from pixelwise.checking import survey, take_survey
from pixelwise.datasets.dataset import Dataset, open_data

inspect = Dataset.inspect

def slow(self, index):
    SABOTAGE
    return inspect(self, index)

Dataset.inspect = slow
opened = open_data(DataConfig(), Path(sys.argv[1]))
taken = take_survey(opened, lambda done, total: print(done, flush=True), workers=2)
print("good", len(taken.usable), flush=True)
"""


def start(opened: DataSplits, sabotage: str) -> subprocess.Popen[str]:
    code = CODE.replace("SABOTAGE", sabotage)
    command = [sys.executable, "-c", code, opened.description["root"]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def children(process: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def running(process: int) -> bool:
    """Whether a process is running, and not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_gone(processes: list[int], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(running, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(running, processes))


@pytest.mark.skipif(not LINUX, reason="processes are forked, and looked for in /proc")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_stopping_ends_every_process_at_once(opened: DataSplits, stop: signal.Signals) -> None:
    process = start(opened, "time.sleep(0.05 if index == 0 else 1)")
    deadline = time.monotonic() + 20
    while len(children(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) == 2
    time.sleep(0.3)
    begun = time.monotonic()
    if stop is signal.SIGINT:
        os.killpg(process.pid, stop)  # a terminal interrupts all of them
    else:
        process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    # Without a stop, the images would take 35 seconds.
    assert time.monotonic() - begun < 15
    assert all_gone(workers)
    if stop is signal.SIGINT:
        assert err.count("Traceback") == 1  # that of the program above
        assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(not LINUX, reason="processes are forked")
def test_the_work_of_a_killed_process_is_done_here(opened: DataSplits) -> None:
    sabotage = "import os, multiprocessing; multiprocessing.parent_process() and self.name == 'val' and os.kill(os.getpid(), 9)"
    process = start(opened, sabotage)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "good 70"
    assert "71" in out.splitlines()


def test_checking_does_not_import_torch() -> None:
    code = "import sys, pixelwise.checking; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_data_set_without_usable_images(tmp_path: Path) -> None:
    draw_good(tmp_path, (("train", 2), ("val", 1)))
    opened = open_data(DataConfig(), tmp_path)
    for path in tmp_path.glob("*/masks/*.png"):
        save(path, halves(right=9))
    taken = take_survey(opened, workers=0)
    assert (len(taken.inspections), len(taken.usable)) == (3, 0)
    assert taken.pixel_counts().tolist() == [0, 0, 0]
    assert np.array_equal(taken.table("val"), taken.table("train"))
