"""Parsing of results, and the choice of the images to show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pixelwise.reporting.gallery import EACH, choose
from pixelwise.reporting.results import Results, Value, area_error


def entry(id, miou, shift=0):
    return {"id": id, "miou": miou, "pixels": 100, "counts": [[0, 50, 60, 60 + shift, 3], [1, 30, 40, 40 - shift, 0]]}


def chosen_from(images):
    return choose(Results.from_dict({"per_image": images}))


def test_worst_median_best_and_images_with_area_errors_are_chosen_once_each():
    images = [entry(f"{i:02}", i / 40, 20 if i in (0, 15, 16) else 0) for i in range(40)]
    chosen = chosen_from(images[::-1])
    assert chosen == {
        "worst": ["00", "01", "02", "03"],
        "median": ["20", "19", "21", "18"],
        "best": ["39", "38", "37", "36"],
        "area": ["15", "16"],
    }


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30))
def test_no_image_is_chosen_twice_or_without_a_score(values):
    images = [entry(str(i), value, i) for i, value in enumerate(values)]
    chosen = chosen_from(images)
    ids = [id for group in chosen.values() for id in group]
    assert len(ids) == len(set(ids))
    assert all(values[int(id)] is not None for id in ids)
    assert all(1 <= len(group) <= EACH for group in chosen.values())
    assert bool(ids) == any(value is not None for value in values)
    if "worst" in chosen:
        assert values[int(chosen["worst"][0])] == min(v for v in values if v is not None)
        assert values[int(chosen["best"][0])] == max(v for v in values if v is not None)


def test_a_few_images_are_all_shown():
    assert chosen_from([entry("b", 0.5), entry("a", 0.5), entry("c", 0.1)]) == {"all": ["c", "a", "b"]}
    assert chosen_from([]) == choose(Results.from_dict({})) == {}


def test_the_area_error_by_hand():
    # Class 0 has 20 pixels too many, class 1 has 20 too few: 40 of 100.
    images = [entry("a", 0.5, 20), entry("b", 0.5), {"id": "c", "pixels": 0, "counts": []}]
    found = Results.from_dict({"per_image": images}).evaluation.images
    assert [area_error(image) for image in found] == [0.4, 0.0, None]


def test_missing_keys_are_undefined():
    results = Results.from_dict({})
    assert (results.classes, results.confusion, results.calibration) == ((), None, {})
    assert results.score("miou") == Value("miou")
    assert results.score_keys == results.class_score_keys == []
