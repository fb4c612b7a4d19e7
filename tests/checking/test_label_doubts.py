from tests.checking.drawn import inspected, of_kind, survey_of

from pixelwise.checking.label_doubts import doubt, labels_in_doubt


def suspect(id_: str, pixels: int, confidence: float = 0.95) -> dict[str, object]:
    return {
        "id": id_,
        "part": id_.partition("/")[0],
        "truth": "ground",
        "prediction": "road",
        "pixels": pixels,
        "confidence": confidence,
    }


def test_the_doubt_is_weighted_by_confidence() -> None:
    assert doubt(suspect("train/0", 100, 1.0)) == 100
    assert doubt(suspect("train/0", 100, 0.5)) == 0


def test_images_are_ranked_by_the_sum_of_their_doubts() -> None:
    survey = survey_of({"train": [inspected()] * 3, "val": [inspected()] * 2})
    suspects = [suspect("train/1", 500), suspect("val/0", 400), suspect("val/0", 300)]
    found = labels_in_doubt(survey, suspects, ["val: 1 image is too large"], confidence=0.9, most_per_split=50)
    assert of_kind(found, "not-doubted").where == ("val",)
    warning = of_kind(found, "labels-in-doubt")
    assert (warning.severity, warning.count, warning.of) == ("warning", 2, 5)
    assert (warning.where, warning.examples) == (("val/0", "train/1"), (("val", 0), ("train", 1)))
    assert warning.what == (
        "2 images have labels in doubt: a model with a confidence of at least 90% predicts another class in 3 regions"
    )
    assert "in train/1, 500 pixels of 'ground' are predicted as 'road'" in warning.why
    (cut,) = labels_in_doubt(survey, suspects, [], confidence=0.9, most_per_split=2)
    assert cut.what.startswith("at least 2 images have labels in doubt")


def test_without_suspects_there_is_no_warning() -> None:
    assert labels_in_doubt(survey_of({"train": [inspected()]}), [], [], confidence=0.9, most_per_split=50) == []
