"""`compare` in Python and on the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from tests.evaluation.drawn import NAMES, counted, write_run

import pixelwise
from pixelwise.cli import compare as cli
from pixelwise.errors import UsageError
from pixelwise.evaluation.comparison import MEANS, compare
from pixelwise.evaluation.score_counts import read_run_counts


def test_scores_on_val_are_reported_as_optimistic(tmp_path):
    folders = [write_run(tmp_path / n, counted(0.8, seed=i), split="val") for i, n in enumerate("ab")]
    notices = pixelwise.compare(folders).notices
    assert any(notice.startswith("these are scores on val") for notice in notices)


def predicted(discs, folder, wrong, split="test"):
    """Write the masks of a split with some rows inverted."""
    from PIL import Image

    folder.mkdir()
    for path in sorted((discs / split / "masks").iterdir()):
        mask = np.array(Image.open(path))
        mask[:wrong] = 1 - np.minimum(mask[:wrong], 1)
        Image.fromarray(mask).save(folder / path.name)
    return folder


def test_masks_are_evaluated_and_compared(discs, tmp_path):
    good, bad = predicted(discs, tmp_path / "good", 1), predicted(discs, tmp_path / "bad", 20)
    seen = []
    found = pixelwise.compare([bad, good], data=discs, progress=lambda *event: seen.append(event))
    assert seen == [(name, i + 1, 4) for name in ("bad", "good") for i in range(4)]
    assert found.images == 4
    scores = [pixelwise.evaluate(folder, discs, out=tmp_path / f"{folder.name}-scores") for folder in (bad, good)]
    for standing, alone in zip(found.standings, scores, strict=True):
        assert standing.means["miou"].value == alone.scores.miou.value
        assert standing.classes["disc"].value == alone.scores.classes[1].iou.value
    again = pixelwise.compare([tmp_path / "bad-scores", tmp_path / "good-scores" / "scores.json"])
    assert again.pairs[0].means == found.pairs[0].means
    assert not found.pairs[0].means["miou"].shown  # four images
    assert found.ranking()[0].name == "good"


def test_the_number_of_resamples_is_deprecated_and_without_effect(discs, tmp_path):
    bad, good = (predicted(discs, tmp_path / name, rows, "train") for name, rows in (("bad", 20), ("good", 1)))
    found = pixelwise.compare([bad, good], data=discs, split="train")
    assert found.pairs[0].means["miou"].shown  # twelve images
    with pytest.warns(DeprecationWarning, match="resamples"):
        assert pixelwise.compare([bad, good], data=discs, split="train", resamples=10) == found


def test_intervals_of_evaluations_may_be_left_out(discs, tmp_path):
    masks = predicted(discs, tmp_path / "masks", 5, "train")
    for resamples in (1, 2000):
        found = pixelwise.evaluate(masks, discs, split="train", overrides=(f"evaluate.resamples={resamples}",)).scores
        assert found.miou == pixelwise.evaluate(masks, discs, split="train").scores.miou
        assert found.miou.low < found.miou.value < found.miou.high
    without = pixelwise.evaluate(masks, discs, split="train", overrides=("evaluate.resamples=0",)).scores
    assert (without.miou.low, without.interval) == (None, "none: not requested")


def test_the_document_has_the_promised_keys(tmp_path):
    runs = [counted(q, seed=i, name=n) for i, (q, n) in enumerate([(0.8, "a"), (0.9, "b"), (0.7, "c")])]
    document = json.loads(json.dumps(compare(runs).to_dict(), allow_nan=False))
    assert {"names", "scores", "pairs", "convention", "interval", "interval_method", "notices"} <= set(document)
    method = {"method": "jackknife-logit-t", "unit": "image", "n": 40}
    assert document["interval_method"] == method | {"effective_n": document["interval_method"]["effective_n"]}
    assert document["names"] == ["a", "b", "c"]
    assert document["ranking"] == ["b", "a", "c"]
    assert [(p["a"], p["b"]) for p in document["pairs"]] == [("a", "b"), ("a", "c")]
    pair = document["pairs"][0]
    for name in MEANS:
        assert {"a", "b", "difference", "low", "high", "p", "shown", "n"} == set(pair[name])
    assert [c["name"] for c in pair["classes"]] == list(NAMES)
    assert {"p_adjusted", "shown_alone"} <= set(pair["classes"][0])
    assert {"miou", "miou_low", "miou_high", "classes", "runs"} <= set(document["scores"][0])
    assert "the mIoU of 3 models is not adjusted" in document["interval"]


@pytest.mark.parametrize("long", [False, True])
def test_table_fits_80_columns(long):
    names = ("a-model-with-a-rather-long-name", "another-[model]-with-a-long-name") if long else ("a", "b")
    classes = ("traffic sign of whatever kind there is", "car", "[pole]") if long else NAMES
    runs = [replace(counted(q, seed=i, name=names[i]), classes=classes) for i, q in enumerate((0.6, 0.9))]
    comparison = compare(runs)
    written = StringIO()
    console = Console(file=written, width=80, highlight=False)
    console.print(cli._table(comparison.pairs[0], comparison.images))
    console.print(cli._ranking(comparison))
    text = written.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("better") == 6
    entry = comparison.pairs[0].means["miou"]
    assert f"{100 * entry.difference:+.1f}" in text
    assert f"{100 * entry.low:+.1f} to {100 * entry.high:+.1f}" in text
    assert "pole" in text


def test_the_command_prints_tables_ranking_and_sentences(tmp_path, capsys):
    folders = [str(write_run(tmp_path / n, counted(0.7 + i / 10, seed=i, name=n))) for i, n in enumerate("abc")]
    cli.run(folders)
    out = capsys.readouterr().out
    assert "by mIoU" in out
    assert "b against a, 40 images" in out
    assert "c is better than a: its mIoU is " in out
    cli.run(folders[:2], as_json=True)
    assert json.loads(capsys.readouterr().out)["names"] == ["a", "b"]


def test_split_without_data_is_an_error(tmp_path, discs):
    folders = [str(write_run(tmp_path / n, counted(0.8, seed=i))) for i, n in enumerate("ab")]
    for ask in (lambda: pixelwise.compare(folders, split="test"), lambda: cli.run(folders, split="test")):
        with pytest.raises(UsageError) as error:
            ask()
        assert str(error.value) == (
            "--split test: expected --data as well, found none. Name the images with --data, or leave this out to compare "
            "existing scores."
        )


def test_split_selects_the_images(tmp_path, discs):
    for name in ("a", "b"):
        shutil.copytree(discs / "val" / "masks", tmp_path / name)
    found = pixelwise.compare([tmp_path / "a", tmp_path / "b"], data=discs, split="val")
    assert found.standings[0].means["miou"].value == 1.0
    # Masks were not selected by these scores.
    assert not any("scores on val" in notice for notice in found.notices)


def test_scores_on_val_are_reported_wherever_they_were_computed(tmp_path, discs, tiny, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "out"
    pixelwise.train(discs, out=run, steps=2, seed=3, overrides=tiny)
    monkeypatch.chdir(tmp_path)
    pixelwise.evaluate("run", discs, split="val", out=out)
    # The relative path of the run is no longer valid.
    monkeypatch.chdir(discs)
    assert read_run_counts(out, "out").seed == 3
    assert read_run_counts(out, "out").recipe == read_run_counts(run, "run").recipe is not None
    for found in (pixelwise.compare([run, out]), pixelwise.compare([run, run / "model"], data=discs, split="val")):
        assert any(notice.startswith("these are scores on val") for notice in found.notices)
    on_test = pixelwise.compare([run, run / "model"], data=discs)
    assert not any("scores on val" in notice for notice in on_test.notices)
