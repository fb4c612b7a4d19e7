"""Unknown colours in masks are never matched to the nearest class, and are reported with their share."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelwise.errors import MaskError
from pixelwise.imageio.masks import MaskRule, read_mask
from pixelwise.labels import Labels

LABELS = Labels(("ground", "roof"), colours=((30, 60, 90), (200, 20, 20)))


def save(path: Path, pixels: object) -> Path:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def refusal(path: Path, labels: Labels = LABELS, rule: MaskRule = MaskRule()) -> str:
    with pytest.raises(MaskError) as caught:
        read_mask(path, labels, rule)
    assert str(caught.value).startswith(f"{path}: expected the colours of the classes, found ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_unknown_colours_are_listed_most_frequent_first(tmp_path: Path) -> None:
    pixels = np.full((10, 100, 3), LABELS.colours[0], np.uint8)
    pixels[0, :5], pixels[1, 0] = (0, 200, 0), (0, 0, 200)
    assert refusal(save(tmp_path / "a.png", pixels)) == (
        "expected the colours of the classes, found (0, 200, 0) in 5 pixels (0.5 %), (0, 0, 200) in 1 pixel (0.1 %), "
        "in all 0.6 % of the pixels. Assign each colour to a class, or ignore it: --set 'data.mask_values="
        "{colours: true, ignored: [[0, 200, 0], [0, 0, 200]]}'."
    )
    rule = MaskRule.from_config({"colours": True, "ignored": [[0, 200, 0], [0, 0, 200]]})  # as the message says
    assert np.count_nonzero(read_mask(tmp_path / "a.png", LABELS, rule)[0] == 255) == 6


@pytest.mark.parametrize(
    ("odd", "share"), [(1, "under 0.1 %"), (9999, "over 99.9 %"), (10000, "100 %"), (1234, "12.3 %")]
)
def test_a_share_is_never_rounded_to_0_or_100_percent(tmp_path: Path, odd: int, share: str) -> None:
    pixels = np.full((100, 100, 3), LABELS.colours[0], np.uint8)
    pixels.reshape(-1, 3)[:odd] = (0, 200, 0)
    assert f"(0, 200, 0) in {odd} pixel{'s' * (odd != 1)} ({share}). " in refusal(save(tmp_path / "a.png", pixels))


def test_jpeg_artefacts_are_recognised(tmp_path: Path) -> None:
    pixels = np.full((32, 64, 3), LABELS.colours[0], np.uint8)
    pixels[:, 32:] = (60, 80, 70)
    labels = Labels(("ground", "roof"), colours=(LABELS.colours[0], (60, 80, 70)))
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    lossy = np.asarray(Image.open(buffer))
    assert (lossy != pixels).any()
    said = refusal(save(tmp_path / "a.png", lossy), labels)
    assert "All of them are within " in said
    assert said.endswith("edges: export the masks again as PNG, without smoothing.")


def test_smoothed_edges_between_distant_colours_are_recognised(tmp_path: Path) -> None:
    big = Image.new("RGB", (256, 256), LABELS.colours[0])
    ImageDraw.Draw(big).ellipse((30, 40, 200, 220), fill=LABELS.colours[1])
    said = refusal(save(tmp_path / "a.png", big.resize((32, 32), Image.Resampling.BOX)))
    assert said.endswith(
        "The edges look smoothed (anti-aliased), or the mask was once lossy: export masks without smoothing."
    )
    assert " and " in said
    assert " more, in all " in said


def test_a_nearly_equal_colour_is_not_the_class(tmp_path: Path) -> None:
    pixels = [[LABELS.colours[0], (31, 60, 90)]]
    assert "found (31, 60, 90) in 1 pixel (50 %). All of them are within 1 of" in refusal(
        save(tmp_path / "a.png", pixels)
    )


def test_grey_values_beyond_eight_bits_are_no_colours(tmp_path: Path) -> None:
    labels = Labels(("a", "b"), colours=((0, 0, 0), (1, 1, 1)))
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 1, 257]], np.uint16)).save(path)
    assert "found no colour in 1 pixel (33.3 %)" in refusal(path, labels, MaskRule(colours=True))


def test_rules_survive_a_round_trip_through_the_configuration() -> None:
    for rule in (
        MaskRule(),
        MaskRule(binary=False),
        MaskRule(threshold=128),
        MaskRule(values={0: 0, 255: 1}),
        MaskRule(colours=True),
        MaskRule(colours=True, ignored=((1, 2, 3), (4, 5, 6))),
    ):
        assert MaskRule.from_config(rule.to_config()) == rule
