"""Pairing of the names of masks with those of images."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.formats.folders.names import Affix, Tie, find_tie, key_of, pair


def ties(images: list[str], masks: list[str]) -> Tie:
    return find_tie(dict.fromkeys(images), dict.fromkeys(masks))


def test_equal_names_come_first() -> None:
    assert ties(["a", "b"], ["a", "b"]) == Tie(count=2)
    assert ties(["a", "b"], ["a", "c"]) == Tie(count=1)
    assert ties(["1", "11", "21"], ["1", "11", "21", "31"]) == Tie(count=3)


@pytest.mark.parametrize(("before", "behind"), [("", "_mask"), ("gt_", ""), ("", "_L"), ("m.", "-x"), ("", "mask")])
def test_affixes_common_to_all_masks(before: str, behind: str) -> None:
    images = [f"x/{stem}" for stem in ("1", "2", "11", "12", "a_1")]
    tie = ties(images, [f"x/{before}{key[2:]}{behind}" for key in images])
    assert tie == Tie(mask=Affix(before, behind), count=5)


def test_most_masks_must_find_their_image() -> None:
    assert ties(["a", "b", "c"], ["a_mask", "b_mask", "overview"]).count == 2
    assert ties(["a", "b", "c", "d"], ["a_mask", "q", "r", "s"]).count == 0


def test_numbers_are_not_cut() -> None:
    assert ties(["1", "2"], ["11", "12"]).count == 0
    assert ties(["img_10", "img_11"], ["m_00", "m_01"]).count == 0
    assert ties(["img_10", "img_11"], ["m_10", "m_11"]) == Tie(Affix("img_"), Affix("m_"), 2)


def test_words_are_not_cut() -> None:
    assert ties(["caseaa", "caseab"], ["gtba", "gtbb"]).count == 0
    assert ties(["img001", "img002"], ["mask001", "mask002"]) == Tie(Affix("img"), Affix("mask"), 2)
    assert ties(["a_leftImg8bit", "b_leftImg8bit"], ["a_gtFine", "b_gtFine"]).mask == Affix("", "_gtFine")


def test_affixes_of_images_and_masks_must_fit_every_file() -> None:
    assert ties(["img_1", "img_2", "img_3"], ["m_1", "m_2"]).count == 0
    assert ties(["img_1", "img_2"], ["m_1", "m_3"]).count == 0


def test_two_kinds_of_masks_for_every_image_are_rivals() -> None:
    tie = ties(["a", "b"], ["a_ids", "b_ids", "a_colour", "b_colour"])
    assert {tie.mask, tie.rival} == {Affix("", "_ids"), Affix("", "_colour")}
    assert ties(["a", "b"], ["a", "b", "a_colour", "b_colour"]).rival == Affix("", "_colour")
    assert ties(["a", "b"], ["a", "b", "overview"]).rival is None


def test_pairs_keep_the_names_of_the_images() -> None:
    images = {"x/img_1": [Path("i/x/img_1.jpg")], "x/img_2": [Path("i/x/img_2.jpg")]}
    masks = {"x/m_1": [Path("m/x/m_1.png")], "x/m_2": [Path("m/x/m_2.png")], "x/m_9": [Path("m/x/m_9.png")]}
    done = pair(images, masks, Tie(Affix("img_"), Affix("m_"), 2))
    assert [(record.id, record.mask) for record in done.records] == [
        ("x/img_1", Path("m/x/m_1.png")),
        ("x/img_2", Path("m/x/m_2.png")),
    ]
    assert done.problems == [(Path("m/x/m_9.png"), "mask without an image")]


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.sets(st.from_regex(r"[a-c]{1,2}[_0-9]{0,2}[0-9]", fullmatch=True), min_size=1, max_size=20),
    st.sampled_from([("", "_mask"), ("mask_", ""), ("", "-gt"), ("seg_", "_v")]),
    st.randoms(use_true_random=False),
)
def test_a_tie_gives_every_image_its_own_mask(stems: set[str], around: tuple[str, str], chance: random.Random) -> None:
    before, behind = around
    masks = [f"{before}{stem}{behind}" for stem in stems]
    chance.shuffle(masks)
    images = {stem: [Path(f"{stem}.jpg")] for stem in sorted(stems)}
    truths = {name: [Path(f"{name}.png")] for name in masks}
    tie = find_tie(images, truths)
    assert tie.rival is None
    assert tie.count == len(stems)
    done = pair(images, truths, tie)
    assert not done.problems
    assert {r.id: r.mask for r in done.records} == {stem: Path(f"{before}{stem}{behind}.png") for stem in stems}


def test_letters_with_accents_are_equal_however_they_are_stored() -> None:
    typed, of_macos = Path("images/Stra\u00dfe \u00e9.png"), Path("masks/Stra\u00dfe e\u0301.png")
    assert key_of(typed, Path("images")) == key_of(of_macos, Path("masks"))


def test_a_name_below_the_current_folder_is_not_cut() -> None:
    assert key_of(Path("x/ab.png"), Path()) == "x/ab"
    assert key_of(Path("x/ab.png"), Path("x")) == "ab"
    assert key_of(Path("/x/ab.png"), Path("/")) == "x/ab"
