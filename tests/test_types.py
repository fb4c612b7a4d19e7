import json

import numpy as np
import pytest

from pixelwise import types
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.types import ClassScores, Fingerprint, Prediction, Score, Scores

LABELS = Labels(("ground", "road", "car"))


def test_shares_count_every_pixel_and_name_absent_classes() -> None:
    prediction = Prediction(np.array([[0, 0, 1], [1, 1, 255]], np.uint8), LABELS, Grid())
    assert prediction.shares() == {"ground": 2 / 6, "road": 3 / 6, "car": 0.0}


def test_shares_are_counted_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (37, 41)).astype(np.uint8)
    prediction = Prediction(mask, Labels(("a", "b", "c")), Grid())
    whole = prediction.shares()
    monkeypatch.setattr(types, "_CHUNK", 100)
    assert prediction.shares() == whole
    assert whole["b"] == (mask == 1).mean()


def test_shares_of_more_classes_than_a_byte_holds() -> None:
    many = Labels(tuple(f"c{k}" for k in range(300)), ignore_ids=(999,))
    shares = Prediction(np.array([[299, 65535]], np.uint16), many, Grid()).shares()
    assert len(shares) == 300
    assert (shares["c299"], sum(shares.values())) == (0.5, 0.5)


def scores() -> Scores:
    road = ClassScores("road", Score(0.5, 0.4, 0.6), Score(0.7), Score(None), Score(1.0), 12)
    return Scores(
        miou=Score(0.5, 0.25, 0.75),
        miou_present=Score(0.5),
        mean_dice=Score(None),
        pixel_accuracy=Score(0.9),
        frequency_weighted_iou=Score(0.8),
        classes=(road,),
        images=3,
        ignored_pixels=7,
        excluded=("car",),
        convention="so",
        interval="thus",
        confusion=np.array([[2**53 + 1]], np.int64),
    )


def test_the_keys_of_scores_json_are_plain_and_stable() -> None:
    plain = json.loads(json.dumps(scores().to_dict(), allow_nan=False))
    spread = ("miou", "miou_present", "mean_dice", "pixel_accuracy", "frequency_weighted_iou")
    assert list(plain) == [
        *(f"{name}{end}" for name in spread for end in ("", "_low", "_high", "_n")),
        "images",
        "ignored_pixels",
        "classes",
        "excluded",
        "convention",
        "interval",
        "interval_method",
        "confusion",
    ]
    assert (plain["miou"], plain["miou_low"], plain["miou_high"], plain["mean_dice"]) == (0.5, 0.25, 0.75, None)
    assert plain["confusion"] == [[2**53 + 1]]  # counts stay whole numbers
    measures = ("iou", "dice", "precision", "recall")
    names = ["name", *(f"{name}{end}" for name in measures for end in ("", "_low", "_high", "_n")), "pixels"]
    assert list(plain["classes"][0]) == names
    assert plain["classes"][0]["precision"] is None


def test_a_fingerprint_comes_back_from_json() -> None:
    facts = Fingerprint(
        images=2,
        channels=1,
        dtype="uint16",
        sizes=((1, 2), (3, 4), (5, 6)),
        mean=(0.5,),
        std=(1.5,),
        pixel_counts=(2**40, 0),
        image_counts=(2, 0),
        ignored_share=0.25,
        thickness=(3.5, None),
        row_spread=0.1,
        hash="ab",
    )
    assert Fingerprint.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


@pytest.mark.parametrize("value", [scores(), scores().miou, Prediction(np.zeros((1, 1)), LABELS, Grid())])
def test_values_are_frozen(value: object) -> None:
    with pytest.raises(AttributeError):
        value.images = 1  # type: ignore[attr-defined]
