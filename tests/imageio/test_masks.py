import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.config import Config, with_overrides
from pixelwise.errors import ConfigError, MaskError, ResourceError
from pixelwise.imageio.file_formats import READABLE
from pixelwise.imageio.images import Limits, read_mask_values
from pixelwise.imageio.masks import MaskRule, read_ids, read_mask, write_mask
from pixelwise.labels import Labels

DATA = Path(__file__).parents[3] / "shared" / "data"
TWO = Labels(("ground", "road"))
FIVE = Labels(tuple("abcde"))
fast = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(path, values, **options):
    image = Image.fromarray(np.asarray(values))
    if "palette" in options:
        image.putpalette(options.pop("palette"))
    image.save(path, **options)
    return path


def u8(*rows):
    return np.array(rows, np.uint8)


def refusal(path, labels, rule=MaskRule()) -> str:
    with pytest.raises(MaskError) as caught:
        read_mask(path, labels, rule)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_values_are_ids(tmp_path, name):
    mask, notices = read_mask(save(tmp_path / name, u8([0, 1, 4], [255, 3, 2])), FIVE)
    assert (mask.tolist(), mask.dtype, notices) == ([[0, 1, 4], [255, 3, 2]], np.uint8, [])


@pytest.mark.parametrize("palette", [[200, 0, 0, 0, 200, 0, 9, 9, 9], [0, 0, 0, 255, 255, 255, 38, 38, 38]])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_palettes_give_indices_never_colours(tmp_path, name, palette):
    """An all-grey palette is a palette too: index 1 shown as 255 is class 1, not "ignored"."""
    path = save(tmp_path / name, u8([0, 1, 2, 1]), palette=palette)
    assert read_mask(path, FIVE)[0].tolist() == [[0, 1, 2, 1]]


def test_a_grey_palette_of_0_and_255_is_the_two_classes(tmp_path):
    ramp = [value for grey in range(256) for value in (grey, grey, grey)]
    mask, notices = read_mask(save(tmp_path / "a.png", u8([0, 255, 255]), palette=ramp), TWO)
    assert (mask.tolist(), len(notices)) == ([[0, 1, 1]], 1)
    assert read_mask(save(tmp_path / "b.png", u8([0, 1, 1]), palette=ramp), TWO)[0].tolist() == [[0, 1, 1]]


def test_1_bit_palettes_give_indices(tmp_path):
    white_first = save(tmp_path / "a.png", u8([0, 1, 1]), palette=[255, 255, 255, 0, 0, 0], bits=1)
    assert read_mask(white_first, TWO)[0].tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_1_bit_masks_are_0_and_1(tmp_path, name):
    mask, notices = read_mask(save(tmp_path / name, np.array([[True, False, True]])), TWO)
    assert (mask.tolist(), notices) == ([[1, 0, 1]], [])


def test_ids_above_8_bits_are_kept(tmp_path):
    labels = Labels(("a", "b", "c"), ids=(0, 256, 40000))
    save(tmp_path / "a.png", np.array([[0, 256, 40000, 255]], np.uint16))
    assert read_mask(tmp_path / "a.png", labels)[0].tolist() == [[0, 1, 2, 255]]
    labels = Labels(("a", "b", "c"), ids=(0, 70000, 9))
    tifffile.imwrite(tmp_path / "a.tif", np.array([[9, 70000, 0]], np.int32))
    assert read_mask(tmp_path / "a.tif", labels)[0].tolist() == [[2, 1, 0]]
    save(tmp_path / "b.png", np.array([[257]], np.uint16))
    assert "found 257 in 1 pixel." in refusal(tmp_path / "b.png", TWO)


def test_0_and_255_are_the_two_classes_with_a_notice(tmp_path):
    path = save(tmp_path / "a.png", u8([0, 255, 255]))
    mask, notices = read_mask(path, TWO)
    assert mask.tolist() == [[0, 1, 1]]
    assert notices == ["values 0 and 255 are read as class ids 0 and 1. Set data.mask_values to state a rule."]
    assert read_mask(path, Labels(("a", "b"), ids=(0, 7)))[0].tolist() == [[0, 1, 1]]
    ids, notices = read_ids(path)
    assert (ids.tolist(), len(notices)) == ([[0, 1, 1]], 1)


def test_255_is_not_mapped_if_it_has_another_meaning(tmp_path):
    path = save(tmp_path / "a.png", u8([0, 255]))
    assert read_mask(path, FIVE)[0].tolist() == [[0, 255]]
    mask, notices = read_mask(path, Labels(("a", "b"), ids=(0, 255)))
    assert (mask.tolist(), notices) == ([[0, 1]], [])
    assert read_mask(path, TWO, MaskRule(binary=False))[0].tolist() == [[0, 255]]
    three = save(tmp_path / "b.png", u8([0, 1, 255]))
    assert read_mask(three, TWO)[0].tolist() == [[0, 1, 255]]
    none = save(tmp_path / "c.png", u8([0, 0]))
    assert read_mask(none, TWO)[1] == []


def test_unknown_ids_are_counted(tmp_path):
    path = save(tmp_path / "0412.png", u8([17] * 3 + [0] * 3))
    assert refusal(path, FIVE) == (
        "expected class ids 0–4, found 17 in 3 pixels. Add class 17 to labels.yaml, or set ignore_index."
    )
    path = save(tmp_path / "b.png", u8([9, 8, 8, 7, 6, 5, 5, 5]))
    gaps = Labels(("a", "b", "c"), ids=(0, 2, 7))
    assert refusal(path, gaps) == (
        "expected class ids 0, 2, 7, found 5 in 3 pixels, 8 in 2 pixels, 6 in 1 pixel, 9 in 1 pixel. "
        "Add the classes to labels.yaml, or set ignore_index."
    )
    tifffile.imwrite(tmp_path / "c.tif", np.array([[0, -1]], np.int16))
    assert "found -1 in 1 pixel" in refusal(tmp_path / "c.tif", FIVE)


def test_smoothed_edges_are_recognised(tmp_path):
    soft = np.full((20, 20), 255, np.uint8)
    soft[:10], soft[10] = 0, np.arange(20) * 12 + 10
    for labels in (TWO, FIVE):
        text = refusal(save(tmp_path / "a.png", soft), labels)
        assert text.endswith(
            "The edges look smoothed (anti-aliased): export masks without smoothing, or read bright pixels as the second class: "
            "--set 'data.mask_values={threshold: 128}'."
        )


def test_two_classes_that_were_once_jpeg_are_recognised(tmp_path):
    """Saved as PNG again, the false ids remain; only the values show them."""
    half = np.zeros((64, 64), np.uint8)
    half[20:40, 13:50] = 255
    lossy = read_mask_values(save(tmp_path / "a.jpg", half)).values
    again = save(tmp_path / "b.png", lossy)
    assert refusal(again, TWO).endswith("--set 'data.mask_values={threshold: 128}'.")
    np.testing.assert_array_equal(read_mask(again, TWO, MaskRule(threshold=128))[0], half // 255)


def test_a_lossy_mask_is_recognised_by_its_content(tmp_path):
    save(tmp_path / "a.jpg", np.zeros((8, 8), np.uint8)).rename(tmp_path / "a.png")
    assert "found lossy JPEG" in refusal(tmp_path / "a.png", TWO)


def test_commands_in_messages_work_in_a_shell_and_the_configuration(tmp_path):
    soft = np.full((20, 20), 255, np.uint8)
    soft[:10], soft[10] = 0, np.arange(20) * 12 + 10
    text = refusal(save(tmp_path / "a.png", soft), TWO)
    words = shlex.split(text[text.index("--set") : -1])
    rule = MaskRule.from_config(with_overrides(Config(), words[1:]).data.mask_values)
    assert rule == MaskRule(threshold=128)
    assert read_mask(tmp_path / "a.png", TWO, rule)[0][[0, -1], 0].tolist() == [0, 1]


def test_threshold(tmp_path):
    path = save(tmp_path / "a.png", u8([0, 127, 128, 255]))
    assert read_mask(path, TWO, MaskRule(threshold=128))[0].tolist() == [[0, 0, 1, 1]]
    bits = save(tmp_path / "b.png", np.array([[True, False]]))
    assert read_mask(bits, TWO, MaskRule(threshold=128))[0].tolist() == [[1, 0]]
    colours = save(tmp_path / "c.png", np.array([[[255, 255, 0], [0, 0, 255]]], np.uint8))
    assert read_mask(colours, TWO, MaskRule(threshold=128))[0].tolist() == [[1, 0]]
    grey = save(tmp_path / "d.png", u8([0, 1]), palette=[255, 255, 255, 0, 0, 0])
    assert read_mask(grey, TWO, MaskRule(threshold=128))[0].tolist() == [[1, 0]]
    bright = save(tmp_path / "e.png", u8([0, 1]), palette=[0, 0, 0, 200, 0, 0])
    assert refusal(bright, TWO, MaskRule(threshold=128)).startswith(
        "expected grey values to compare with the threshold"
    )


def test_lossy_masks_need_a_threshold(tmp_path):
    half = np.zeros((32, 32), np.uint8)
    half[:, 13:] = 255
    path = save(tmp_path / "a.jpg", half)
    assert len(np.unique(read_mask_values(path).values)) > 2, "false ids"
    assert refusal(path, TWO) == (
        "expected a lossless mask, PNG or TIFF, found lossy JPEG, whose compression creates false ids along the edges. "
        "Save the masks as PNG; or, with two classes only, read bright pixels as the second: "
        "--set 'data.mask_values={threshold: 128}'."
    )
    refusal(path, TWO, MaskRule(values={0: 0, 255: 1}))
    np.testing.assert_array_equal(read_mask(path, TWO, MaskRule(threshold=128))[0], half // 255)
    assert "found lossy WebP" in refusal(save(tmp_path / "a.webp", np.stack([half] * 3, -1), quality=50), TWO)


def test_values(tmp_path):
    rule = MaskRule(values={0: 1, 100: 0, 255: 255})
    path = save(tmp_path / "a.png", u8([0, 100, 255]))
    assert read_mask(path, TWO, rule) == (pytest.approx(np.array([[1, 0, 255]])), [])
    path = save(tmp_path / "b.png", u8([0, 5, 5]))
    assert refusal(path, TWO, rule) == (
        "expected values 0, 100, 255, as mapped by data.mask_values, found 5 in 2 pixels. Add the value to data.mask_values."
    )
    path = save(tmp_path / "c.png", np.array([[True, False]]))
    assert read_mask(path, TWO, MaskRule(values={0: 0, 255: 1}))[0].tolist() == [[1, 0]]
    assert read_mask(path, TWO, MaskRule(values={0: 1, 1: 0}))[0].tolist() == [[0, 1]]
    path = save(tmp_path / "d.png", np.array([[[255] * 3, [0] * 3]], np.uint8))
    assert read_mask(path, TWO, MaskRule(values={0: 0, 255: 1}))[0].tolist() == [[1, 0]]
    tifffile.imwrite(tmp_path / "f.tif", np.array([[0, -1]], np.int16))
    assert read_mask(tmp_path / "f.tif", TWO, MaskRule(values={0: 0, -1: 255}))[0].tolist() == [[0, 255]]


COLOURED = Labels(("sky", "road"), colours=((128, 128, 128), (128, 64, 128)))


def test_colours_are_looked_up(tmp_path):
    pixels = np.array([[[128, 64, 128], [128, 128, 128]]], np.uint8)
    for name in ("a.png", "a.tif"):
        assert read_mask(save(tmp_path / name, pixels), COLOURED)[0].tolist() == [[1, 0]]
    palette = save(tmp_path / "p.png", u8([0, 1]), palette=[128, 64, 128, 128, 128, 128])
    assert read_mask(palette, COLOURED)[0].tolist() == [[0, 1]]
    assert read_mask(palette, COLOURED, MaskRule(colours=True))[0].tolist() == [[1, 0]]
    grey = save(tmp_path / "g.png", u8([128]))
    assert read_mask(grey, COLOURED, MaskRule(colours=True))[0].tolist() == [[0]]
    odd = save(tmp_path / "o.png", np.concatenate([pixels, pixels * 0]))
    assert refusal(odd, COLOURED) == (
        "expected the colours of the classes, found (0, 0, 0) in 2 pixels (50 %). Assign that colour to a class, or "
        "ignore it: --set 'data.mask_values={colours: true, ignored: [[0, 0, 0]]}'."
    )
    rule = MaskRule(colours=True, ignored=((0, 0, 0),))
    assert read_mask(odd, COLOURED, rule)[0].tolist() == [[1, 0], [255, 255]]


def test_colour_masks_that_cannot_be_read(tmp_path):
    grey = save(tmp_path / "a.png", np.array([[[128] * 3, [7] * 3]], np.uint8))
    assert (
        "All three bands are equal. To read them as class ids: --set 'data.mask_values={7: 7, 128: 128}'; or"
        in refusal(grey, COLOURED)
    )
    same = Labels(("a", "b"), colours=((1, 1, 1), (1, 1, 1)))
    assert refusal(grey, same).startswith("expected a different colour for every class")
    colours = save(tmp_path / "b.png", np.array([[[0, 1, 2]]], np.uint8))
    assert "found colours" in refusal(colours, TWO, MaskRule(values={0: 0}))
    with pytest.raises(MaskError, match=r"found colours and no labels. Write a labels.yaml with names and colours."):
        read_ids(colours)


def with_suggestion(text: str) -> MaskRule:
    """Type the first option that a message suggests."""
    words = shlex.split(text[text.index("--set") :])
    return MaskRule.from_config(with_overrides(Config(), [words[1].rstrip(".;,")]).data.mask_values)


@pytest.mark.parametrize("extra", ["", "alpha", "uint16", "uint16 alpha", "int32 bands"])
@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 1, 2, 255], [0, 255], [2], [0]])
def test_equal_bands_hold_ids(tmp_path, ids, extra):
    """Also beside masks of one band; two classes may be 0 and 255."""
    grey = np.random.default_rng(0).choice(ids, (9, 11)).astype(np.int32 if "int32" in extra else np.uint8)
    path = tmp_path / ("a.tif" if extra else "a.png")
    if extra in ("", "alpha"):
        save(path, np.dstack([grey] * 3 + [np.full_like(grey, 255)] * (extra == "alpha")))
    else:
        dtype = np.int32 if "int32" in extra else np.uint16
        bands = np.dstack([grey] * 3).astype(dtype)
        bands = np.dstack([bands, np.full_like(grey, 65535, dtype)]) if "alpha" in extra else bands
        more = {"extrasamples": ["unassalpha"]} if "alpha" in extra else {}
        tifffile.imwrite(
            path, bands, photometric="rgb" if dtype == np.uint16 else "minisblack", planarconfig="contig", **more
        )
    single = save(tmp_path / "b.png", grey.astype(np.uint8))
    for labels in (Labels(tuple("abc")), TWO):
        if labels is TWO and 2 in ids:
            continue
        expected = read_mask(single, labels)[0]
        mask, notices = read_mask(path, labels)
        np.testing.assert_array_equal(mask, expected)
        assert "the bands of the masks are equal: one is read as class ids" in notices
    np.testing.assert_array_equal(read_ids(path, MaskRule(binary=False))[0], grey)


def test_grey_colours_of_the_labels_win_over_equal_bands(tmp_path):
    greys = Labels(("a", "b", "c"), ids=(5, 1, 128), colours=((0, 0, 0), (128, 128, 128), (1, 1, 1)))
    path = save(tmp_path / "a.png", np.dstack([u8([0, 128, 1])] * 3))
    assert read_mask(path, greys)[0].tolist() == [[0, 1, 2]]
    shown = Labels(("a", "b", "c"), colours=((0, 0, 0), (255, 0, 0), (0, 255, 0)))  # colours that are only for display
    path = save(tmp_path / "b.png", np.dstack([u8([0, 1, 2, 255])] * 3))
    assert read_mask(path, shown)[0].tolist() == [[0, 1, 2, 255]]
    path = save(tmp_path / "c.png", np.dstack([u8([0, 255])] * 3))  # white may be a colour that was forgotten
    text = refusal(path, Labels(("a", "b"), colours=((0, 0, 0), (255, 0, 0))))
    assert "expected the colours of the classes, found " in text
    assert read_mask(path, TWO, with_suggestion(text))[0].tolist() == [[0, 1]]


NEGATIVE = [
    (values, dtype)
    for values in ([-1, 0, 1], [-9999, -1, 0, 1, 255], [-1, 0, 255], [-1, 0, 1, 7], [-2, 1])
    for dtype in (np.int8, np.int16, np.int32, np.int64, np.float32, np.float64)
    if dtype != np.int8 or -128 <= min(values) <= max(values) <= 127
]


@pytest.mark.parametrize(("values", "dtype"), NEGATIVE)
def test_negative_ids_are_one_message_whose_advice_works(tmp_path, values, dtype):
    stored = np.tile(np.array(values), (4, 3)).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    text = refusal(tmp_path / "a.npy", TWO)
    pixels = f"{values[0]} in 12 pixels"
    assert text.startswith("expected class ids ")
    assert pixels in text
    assert "% of the mask. Ignore pixels without a label: --set" in text
    assert ("Add class 7 to labels.yaml, if" in text) == (7 in values)
    mask, _ = read_mask(tmp_path / "a.npy", TWO, with_suggestion(text))
    second = 255 if max(values) == 255 and 1 not in values else 1
    expected = np.where(stored == 0, 0, np.where(stored == second, 1, 255))
    np.testing.assert_array_equal(mask, expected)
    # A mapping that lacks the negative ids is completed.
    text = refusal(tmp_path / "a.npy", TWO, MaskRule(values={0: 0, second: 1} | {v: 255 for v in values if v > second}))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.npy", TWO, with_suggestion(text))[0], expected)
    # And the labels may say it.
    labels = Labels(("a", "b"), ids=(0, second), ignore_ids=tuple(v for v in values if v not in (0, second)))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.npy", labels)[0], expected)


def test_a_negative_ignore_index_is_written_as_255(tmp_path):
    labels = Labels(("a", "b"), ignore_ids=(-1,))
    assert labels.ignore_ids == (255, -1)
    assert Labels.from_dict(labels.to_dict()) == labels
    write_mask(tmp_path / "a.png", u8([0, 1, 255]), labels)
    assert read_mask_values(tmp_path / "a.png").values.tolist() == [[0, 1, 255]]
    assert read_mask(tmp_path / "a.png", labels)[0].tolist() == [[0, 1, 255]]
    many = Labels(tuple(map(str, range(256))), ignore_ids=(-9999,))
    assert many.ignore_ids == (256, -9999)
    write_mask(tmp_path / "b.png", np.array([[0, 255, 65535]]), many)
    assert read_mask(tmp_path / "b.png", many)[0].tolist() == [[0, 255, 65535]]


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.tif"):
        path = save(tmp_path / name, u8([0, 1, 2], [3, 4, 0]), exif=exif)
        assert read_mask(path, FIVE)[0].tolist() == [[3, 0], [4, 1], [0, 2]]


def test_limits_and_broken_files(tmp_path):
    path = save(tmp_path / "a.png", u8([0, 1, 2]))
    with pytest.raises(MaskError, match="expected at most 2 pixels"):
        read_mask(path, FIVE, limits=Limits(pixels=2))
    path.write_bytes(path.read_bytes()[:-20])
    assert "found one that ends early (truncated)" in refusal(path, FIVE)


def test_a_nodata_value_among_floats_is_not_called_a_fraction(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 1], [-3.4e38, 1]], np.float32))
    assert refusal(tmp_path / "a.tif", TWO) == (
        "expected whole numbers, found float values up to ±3.4e+38. Save the mask as whole numbers."
    )


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_virtual_raster_is_no_mask(tmp_path, name):
    """GDAL's XML refers to other files of the machine; none of them is opened."""
    secret = save(tmp_path / "secret.png", u8([0, 1]))
    (tmp_path / name).write_text(
        '<VRTDataset rasterXSize="2" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert refusal(tmp_path / name, TWO).startswith(f"expected a {READABLE} file, found a web page or XML. ")


@pytest.mark.parametrize(
    ("plain", "rule"),
    [
        (None, MaskRule()),
        ({"threshold": 128}, MaskRule(threshold=128)),
        ({0: 0, 255: 1}, MaskRule(values={0: 0, 255: 1})),
        ({"0": 0, "255": 1}, MaskRule(values={0: 0, 255: 1})),
        ({"colours": True}, MaskRule(colours=True)),
        ({"colours": True, "ignored": [[0, 0, 0]]}, MaskRule(colours=True, ignored=((0, 0, 0),))),
        ({"binary": False}, MaskRule(binary=False)),
        ({"objects": True}, MaskRule(objects=True)),
        ({"objects": False}, MaskRule()),
    ],
)
def test_rules_from_the_configuration(plain, rule):
    assert MaskRule.from_config(plain) == rule
    assert MaskRule.from_config(rule.to_config()) == rule


@pytest.mark.parametrize(
    "plain",
    [{}, 128, "threshold", {"threshold": "high"}, {"limit": 3}, {"colours": 1}, {"threshold": True}, {"objects": 1}],
)
def test_invalid_rules(plain):
    with pytest.raises(ConfigError, match=r"data\.mask_values: expected null, \{threshold: 128\}"):
        MaskRule.from_config(plain)


def test_rules_exclude_each_other():
    with pytest.raises(ConfigError, match="expected one rule, found several"):
        MaskRule(threshold=1, colours=True)
    with pytest.raises(ConfigError, match="Keep threshold, values, colours or objects"):
        MaskRule(values={0: 0}, objects=True)


@st.composite
def labelled_masks(draw):
    top = draw(st.sampled_from([9, 255, 300, 65000]))
    ids = draw(st.lists(st.integers(0, top), min_size=1, max_size=8, unique=True))
    if draw(st.booleans()) and top >= 300:
        ids = list(range(260))
    ignore = draw(st.integers(0, top).filter(lambda i: i not in ids)) if len(ids) <= top else 65535
    labels = Labels(tuple(f"c{i}" for i in ids), ids=tuple(ids), ignore_ids=(ignore,))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    values = st.sampled_from([*range(len(ids)), labels.ignore_index])
    flat = draw(st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return labels, np.array(flat, labels.dtype).reshape(shape)


@fast
@given(labelled_masks())
def test_written_masks_are_read_back(tmp_path, case):
    labels, mask = case
    write_mask(tmp_path / "a.png", mask, labels)
    again, notices = read_mask(tmp_path / "a.png", labels, MaskRule(binary=False))
    np.testing.assert_array_equal(again, mask)
    assert (again.dtype, notices) == (labels.dtype, [])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"], "nothing is left beside it"


def test_written_palettes_show_the_colours_of_the_classes(tmp_path):
    labels = Labels(("a", "b"), ids=(3, 200), colours=((1, 2, 3), (250, 0, 9)))
    write_mask(tmp_path / "a.png", u8([0, 1, 255]), labels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == [[3, 200, 255]]
        shown = np.asarray(image.convert("RGB"))[0].tolist()
    assert shown[:2] == [[1, 2, 3], [250, 0, 9]]
    assert min(shown[2]) > 230


def test_ids_from_256_on_are_written_as_16_bit_grey(tmp_path):
    labels = Labels(("a", "b"), ids=(0, 1000))
    write_mask(tmp_path / "a.png", u8([0, 1, 255]), labels)
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, np.asarray(image).tolist()) == ("I;16", [[0, 1000, 255]])


def test_masks_that_cannot_be_written(tmp_path):
    path = tmp_path / "a.png"
    for mask, labels, text in (
        (u8([2]), TWO, "expected class indices 0–1 or 255, found 2 in 1 pixel. Write indices, not ids"),
        (
            u8([255]),
            Labels(("a", "b"), ids=(0, 255)),
            "found none in the labels and 1 ignored pixels. Set ignore_index",
        ),
        (u8([0]), Labels(("a", "b"), ids=(0, 70000)), "expected ids that fit in 16 bits, found 70000"),
        (np.zeros((2, 2)), TWO, "expected whole numbers of shape (H, W), found shape (2, 2) of float64"),
    ):
        with pytest.raises(MaskError) as caught:
            write_mask(path, mask, labels)
        assert text in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_mask(path, u8([0, 1]), TWO)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(
        ResourceError,
        match=r"expected a writable disk with free space, found No space left on device\. Free disk space",
    ):
        write_mask(path, u8([1, 1]), TWO)
    monkeypatch.undo()
    assert read_mask(path, TWO)[0].tolist() == [[0, 1]]
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.skipif(not DATA.exists(), reason="the real images are not here")
def test_real_masks():
    camvid = Labels(tuple(f"c{i}" for i in range(11)), ignore_ids=(11,))
    roads = sorted((DATA / "camvid" / "trainannot").glob("*.png"))[:3]
    cracks = sorted((DATA / "magnetic_tile" / "MT_Break" / "Imgs").glob("*.png"))[:3]
    assert (len(roads), len(cracks)) == (3, 3)
    for path in roads:
        mask, notices = read_mask(path, camvid)
        with Image.open(path) as image:
            stored = np.asarray(image)
        np.testing.assert_array_equal(np.where(stored == 11, 255, stored), mask)
        assert notices == []
    for path in cracks:
        mask, _ = read_mask(path, TWO, MaskRule(threshold=128))
        assert 0 < mask.mean() < 0.5
