import time

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.demo import backdrop, painter, synthetic, traffic
from pixelwise.errors import OutputExistsError, UsageError
from pixelwise.labels import Labels

SMALL = (96, 128)
ALL = ("background", *backdrop.MATERIALS)


def confusion(truth, guess, classes=4):
    return np.bincount(truth.ravel() * classes + guess.ravel(), minlength=classes**2).reshape(classes, classes)


def ious(matrix):
    return np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))


@pytest.fixture(scope="module")
def scenes():
    """200 scenes for training and 50 for testing."""
    drawn = [synthetic.draw_scene(5, k, SMALL) for k in range(250)]
    return drawn[:200], drawn[200:]


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_a_scene_is_a_function_of_its_arguments():
    first = synthetic.draw_scene(3, 4, SMALL)
    other = synthetic.draw_scene(3, 5, SMALL)
    again = synthetic.draw_scene(3, 4, SMALL)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], synthetic.draw_scene(4, 4, SMALL)[1])


@settings(max_examples=12, deadline=None)
@given(st.integers(64, 150), st.integers(64, 150), st.integers(0, 10**6))
def test_any_size_of_at_least_64(height, width, index):
    image, mask = synthetic.draw_scene(0, index, (height, width))
    assert (image.shape, image.dtype) == ((3, height, width), np.uint8)
    assert (mask.shape, mask.dtype) == ((height, width), np.uint8)
    assert mask.max() < 4
    assert image.std() > 8


def test_a_scene_larger_than_the_noise_tile():
    image, mask = synthetic.draw_scene(0, 1, (64, 600))
    assert image.shape == (3, 64, 600)
    assert len(np.unique(mask)) > 1


def test_masks_of_other_classes_are_the_same_scene():
    image, every = synthetic.draw_scene(1, 2, SMALL, ALL)
    same, four = synthetic.draw_scene(1, 2, SMALL)
    np.testing.assert_array_equal(image, same)
    fold = {"road": 1, "lane marking": 1, "vehicle": 2, "pedestrian": 3}
    np.testing.assert_array_equal(four, np.array([fold.get(name, 0) for name in ALL], np.uint8)[every])


def test_every_material_occurs():
    seen = set()
    for k in range(12):
        seen |= set(np.unique(synthetic.draw_scene(0, k, SMALL, ALL)[1]).tolist())
    assert {ALL[k] for k in seen} == set(backdrop.MATERIALS)


def test_other_materials_belong_to_the_first_class_and_markings_to_road():
    names = ("building", "road", "sky")
    _, every = synthetic.draw_scene(0, 7, SMALL, ALL)
    _, three = synthetic.draw_scene(0, 7, SMALL, names)
    assert (three[every == ALL.index("lane marking")] == 1).all()
    assert (three[every == ALL.index("sky")] == 2).all()
    assert (three[every == ALL.index("terrain")] == 0).all()
    _, none = synthetic.draw_scene(0, 7, SMALL, ("background", "vehicle"))
    assert (none[every == ALL.index("lane marking")] == 0).all()


def test_a_class_that_is_not_a_material_is_an_error():
    with pytest.raises(UsageError) as caught:
        synthetic.draw_scene(0, 0, SMALL, ("background", "dog"))
    assert str(caught.value) == (
        "classes: expected names out of background, sky, terrain, vegetation, building, pole, pavement, road, "
        "lane marking, vehicle, pedestrian, found 'dog'. Name materials of the scenes; all others belong "
        "to the first class."
    )
    with pytest.raises(UsageError, match="found none"):
        synthetic.draw_scene(0, 0, SMALL, ())


def test_a_size_too_small_is_an_error():
    with pytest.raises(UsageError) as caught:
        synthetic.draw_scene(0, 0, (63, 100))
    assert str(caught.value) == "size: expected at least 64 × 64 pixels, found 63 × 100. Choose a larger size."
    with pytest.raises(UsageError, match="at least 16 × 16"):
        synthetic.draw_discs(0, 0, (8, 64))


# --- statistics ---------------------------------------------------------------------------------------------------------


def test_classes_are_as_rare_as_on_real_roads(scenes):
    shares = np.mean([np.bincount(m.ravel(), minlength=4) / m.size for _, m in scenes[0]], axis=0)
    background, road, vehicle, pedestrian = shares
    assert background > 0.5
    assert 0.2 < road < 0.4
    assert 0.05 < vehicle < 0.10
    assert 0.01 < pedestrian < 0.02


def test_nearly_every_scene_shows_vehicles_and_people(scenes):
    present = np.mean([[(m == k).any() for k in range(4)] for _, m in scenes[0]], axis=0)
    assert (present > 0.85).all()


def test_position_alone_does_not_determine_the_class(scenes):
    learned = np.stack([np.stack([m == k for _, m in scenes[0]]).sum(0) for k in range(4)]).argmax(0)
    scores = ious(sum(confusion(m, learned) for _, m in scenes[1]))
    assert scores.mean() < 0.42
    assert scores[2:].max() < 0.02


@pytest.mark.parametrize("bits", [3, 5])
def test_colour_alone_does_not_determine_the_class(scenes, bits):
    def colour(image):
        r, g, b = (image >> (8 - bits)).astype(int)
        return (r << 2 * bits) | (g << bits) | b

    counts = np.zeros((1 << 3 * bits, 4), int)
    for image, mask in scenes[0]:
        np.add.at(counts, (colour(image).ravel(), mask.ravel()), 1)
    scores = ious(sum(confusion(m, counts.argmax(1)[colour(image)]) for image, m in scenes[1]))
    assert scores.mean() < 0.5
    assert scores[2:].max() < 0.35


def test_the_mask_is_aligned_with_the_image(scenes):
    """A mask shifted by a few pixels fits the edges of the image worse."""

    def contrast(shift):
        total = 0.0
        for image, mask in scenes[0][:60]:
            moved = np.roll(mask, shift, axis=1)
            edge = moved[:, 1:] != moved[:, :-1]
            total += np.abs(np.diff(image.astype(float).mean(0), axis=1))[edge].mean()
        return total

    best = contrast(0)
    assert best > 1.3 * max(contrast(-3), contrast(3))
    assert best > max(contrast(-1), contrast(1))


def test_a_scene_is_fast():
    synthetic.draw_scene(0, 0)
    spent = []
    for k in range(12):
        start = time.process_time()
        synthetic.draw_scene(0, k)
        spent.append(time.process_time() - start)
    assert np.median(spent) < 0.25  # about 0.05 on an idle core


# --- components -------------------------------------------------------------------------------------------------------

CAMERA = backdrop.Camera((240, 320), 1.5, 300.0, -12.0, 0.05)
LIGHT = backdrop.Light(
    sun=backdrop.rgb(0, 1, 0), direct=backdrop.rgb(0.5, 0.5, 0.5), ambient=backdrop.rgb(0.5, 0.5, 0.5),
    zenith=backdrop.rgb(0, 0, 1), horizon=backdrop.rgb(1, 1, 1), haze=0.01, cover=0.5, lamps=False,
)  # fmt: skip
ROAD = backdrop.Road(-1.7, 0.1, 0.01, 40.0, 2, 3.4, 2.0, 3.0, 1, 1, -1.0)


def painted(*draws):
    brush = painter.Painter(CAMERA, LIGHT)
    for draw in draws:
        draw(brush)
    canvas = Image.new("RGBA", (320, 240))
    brush.finish(canvas)
    return np.asarray(canvas)


def slab(z, colour, material, half=1.0):
    face = np.array([[-half, 0, z], [half, 0, z], [half, 2, z], [-half, 2, z]], np.float32)
    return lambda brush: brush.paint([face], np.array([colour]), material)


def test_rays_invert_the_projection():
    u, v = CAMERA.rays(1)
    rows, columns = np.array([10, 120, 200]), np.array([5, 160, 300])
    depth = np.array([4.0, 9.0, 30.0])
    x = u[rows, columns] / CAMERA.focal * depth
    y = CAMERA.height - v[rows, columns] / CAMERA.focal * depth
    flat = CAMERA.project(np.stack([x, y, depth], 1))
    np.testing.assert_allclose(flat, np.stack([columns + 0.5, rows + 0.5], 1), atol=1e-3)


@given(st.floats(-5, 100), st.floats(-8, 8))
def test_places_on_the_road_are_perpendicular_to_its_centre_line(along, across):
    x, z, heading = ROAD.place(along, across)
    cx, cz, same = ROAD.place(along, 0.0)
    assert cz == along
    assert heading == same
    assert cx == pytest.approx(float(ROAD.centre(np.float32(along))), abs=1e-3)
    assert np.hypot(x - cx, z - cz) == pytest.approx(abs(across), abs=1e-6)
    assert (x - cx) * np.sin(heading) + (z - cz) * np.cos(heading) == pytest.approx(0, abs=1e-6)


def test_later_polygons_hide_earlier_ones_in_image_and_mask():
    far, near = slab(20, (1, 0, 0), backdrop.BUILDING, 3.0), slab(10, (0, 1, 0), backdrop.VEHICLE)
    canvas = painted(far, near)
    is_near = canvas[..., 3] == backdrop.VEHICLE
    assert is_near.any()
    assert (canvas[..., 3] == backdrop.BUILDING).any()
    assert (canvas[is_near][:, 1] > canvas[is_near][:, 0]).all()
    assert (painted(near, far)[..., 3] == backdrop.VEHICLE).sum() < is_near.sum()


def test_objects_shrink_and_fade_with_depth():
    near, far = painted(slab(10, (0, 0, 0), 8)), painted(slab(20, (0, 0, 0), 8))
    assert (near[..., 3] > 0).sum() == pytest.approx(4 * (far[..., 3] > 0).sum(), rel=0.06)
    assert far[far[..., 3] > 0][0, 0] > near[near[..., 3] > 0][0, 0] > 0


def test_polygons_are_clipped_behind_the_camera():
    assert painter.clip_near(np.array([[0, 0, -2], [1, 0, -2], [1, 1, -1]], np.float32)).shape == (0, 3)
    half = painter.clip_near(np.array([[0, 0, -1], [2, 0, -1], [2, 0, 3], [0, 0, 3]], np.float32))
    assert len(half) == 4
    assert half[:, 2].min() == pytest.approx(0.6)
    assert (painted(slab(-5, (1, 1, 1), 8))[..., 3] == 0).all()


@pytest.mark.parametrize("kind", range(len(traffic.KINDS)))
@pytest.mark.parametrize("heading", [0.0, 0.6, np.pi])
def test_a_vehicle_has_no_holes(kind, heading):
    parts, rng = traffic.KINDS[kind], np.random.default_rng(kind)
    canvas = painted(lambda brush: traffic.vehicle(brush, rng, parts, 0.5, 14.0, heading))
    rows, columns = np.nonzero(canvas[..., 3] == backdrop.VEHICLE)
    foot = traffic.footprint(parts, 0.5, 14.0, heading)
    tall = max(y for body in parts for _, y in body.profile)
    box = np.array([(x, y, z) for x, z in foot for y in (0.0, tall)], np.float32)
    low, high = CAMERA.project(box).min(0), CAMERA.project(box).max(0)
    assert columns.min() >= low[0] - 3
    assert columns.max() <= high[0] + 3
    assert rows.min() >= low[1] - 3
    assert rows.max() <= high[1] + 3
    assert len(rows) > 0.4 * np.prod(high - low)


@pytest.mark.parametrize("profile", [True, False])
def test_a_person_has_the_given_height(profile):
    rng = np.random.default_rng(0)
    canvas = painted(lambda brush: traffic.pedestrian(brush, rng, 0.0, 6.0, 1.8, profile, 1))
    rows = np.nonzero((canvas[..., 3] == backdrop.PEDESTRIAN).any(1))[0]
    assert rows.max() - rows.min() == pytest.approx(1.8 * CAMERA.focal / 6, rel=0.05)


# --- data sets ---------------------------------------------------------------------------------------------------------


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_road_scenes_are_written_and_read_back(tmp_path):
    told = []
    counts = {"train": 2, "val": 1, "test": 1}
    synthetic.write_road_scenes(tmp_path, **counts, size=(64, 80), seed=9, progress=lambda *at: told.append(at))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for split, count in counts.items():
        images = sorted((tmp_path / split / "images").iterdir())
        masks = sorted((tmp_path / split / "masks").iterdir())
        assert [p.name for p in images] == [p.name for p in masks] == [f"{split}-{k:04d}.png" for k in range(count)]
    image, mask = synthetic.draw_scene(9, 1, (64, 80))
    with Image.open(tmp_path / "train/images/train-0001.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), image.transpose(1, 2, 0))
    labels = Labels.from_dict(yaml.safe_load((tmp_path / "labels.yaml").read_text()))
    with Image.open(tmp_path / "train/masks/train-0001.png") as opened:
        assert opened.mode == "P"
        assert opened.getpalette()[:12] == [v for colour in labels.colours for v in colour]
        np.testing.assert_array_equal(np.asarray(opened), mask)
    assert labels.names == synthetic.ROAD_CLASSES
    assert labels.ids == (0, 1, 2, 3)
    assert labels.countable == (False, False, True, True)


def test_files_are_reproducible_and_no_scene_is_in_two_splits(tmp_path):
    for name in ("a", "b"):
        synthetic.write_road_scenes(tmp_path / name, train=2, val=2, test=2, size=(64, 64))
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    images = [data for name, data in first.items() if "/images/" in name]
    assert len(images) == len(set(images)) == 6


def test_more_training_scenes_do_not_change_the_others(tmp_path):
    synthetic.write_discs(tmp_path / "few", train=1, val=1, test=1)
    synthetic.write_discs(tmp_path / "many", train=3, val=1, test=1)
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert few.items() <= many.items()
    assert len(many) == len(few) + 4


def test_a_split_without_scenes_has_no_folder(tmp_path):
    synthetic.write_discs(tmp_path / "new" / "set", train=1, val=0, test=0)
    assert sorted(p.name for p in (tmp_path / "new" / "set").iterdir()) == ["labels.yaml", "train"]


@pytest.mark.parametrize("write", [synthetic.write_road_scenes, synthetic.write_discs])
def test_existing_files_are_not_overwritten(tmp_path, write):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputExistsError) as caught:
        write(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a new or empty folder, found existing files. Choose another folder, or empty it."
    )
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_invalid_arguments_are_errors_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError):
        synthetic.write_road_scenes(tmp_path / "new", size=(32, 32))
    with pytest.raises(UsageError):
        synthetic.write_road_scenes(tmp_path / "new", classes=("cat",))
    assert not (tmp_path / "new").exists()


# --- discs -------------------------------------------------------------------------------------------------------------


def test_discs_are_a_function_of_their_arguments():
    image, mask = synthetic.draw_discs(1, 2, (40, 56))
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((3, 40, 56), np.uint8, (40, 56), np.uint8)
    np.testing.assert_array_equal(image, synthetic.draw_discs(1, 2, (40, 56))[0])
    assert not np.array_equal(mask, synthetic.draw_discs(1, 3, (40, 56))[1])


def test_discs_differ_from_the_background():
    drawn = [synthetic.draw_discs(0, k) for k in range(100)]
    shares = np.array([mask.mean() for _, mask in drawn])
    assert 0.05 < shares.mean() < 0.25
    steps = [abs(image[:, mask == 1].mean() - image[:, mask == 0].mean()) for image, mask in drawn if mask.any()]
    assert np.median(steps) > 20
    guess = [(image.mean(0) > 125).astype(np.uint8) for image, _ in drawn]
    matrix = sum(confusion(mask, g, 2) for (_, mask), g in zip(drawn, guess, strict=True))
    assert ious(matrix)[1] < 0.4  # a global threshold does not find them


def test_discs_are_fast():
    synthetic.draw_discs(0, 0)
    start = time.process_time()
    for k in range(50):
        synthetic.draw_discs(0, k)
    assert (time.process_time() - start) / 50 < 0.005
