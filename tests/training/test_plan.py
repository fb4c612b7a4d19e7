import dataclasses

import pytest

from pixelwise.config import Config, replace
from pixelwise.training.network_plan import Machine
from pixelwise.training.plan import InitialWeights, derive, head_rate, settle
from pixelwise.types import Fingerprint

CPU = Machine("cpu", 2, True)
UNET = replace(Config(), model={"name": "unet"})
FACTS = Fingerprint(
    images=100,
    channels=3,
    dtype="uint8",
    sizes=((360, 480), (360, 480), (360, 480)),
    mean=(100.0, 110.0, 120.0),
    std=(50.0, 51.0, 0.0),
    pixel_counts=(900, 90, 10),
    image_counts=(100, 60, 5),
    ignored_share=0.0,
    thickness=(80.0, 12.0, 9.0),
    row_spread=0.4,
    hash="0",
)


def derived(
    facts: Fingerprint = FACTS, machine: Machine = CPU, config: Config | None = None, steps: int = 10_000
) -> Config:
    filled = derive(config or UNET, facts, machine)[0]
    return settle(replace(filled, train={"steps": steps}), facts, facts.images)[0]


def test_all_values_but_measured_ones_are_derived_with_reasons() -> None:
    config, reasons = derive(UNET, FACTS, CPU)
    config, more = settle(replace(config, train={"steps": 100}), FACTS, 100)
    plain, before = config.model_dump(), UNET.model_dump()
    gaps = {
        f"{s}.{k}" for s in ("model", "train", "augment", "loss", "predict") for k, v in plain[s].items() if v is None
    }
    measured = {
        "train.head_rate",
        "train.precision",
        "train.channels_last",
        "train.validations",
        "train.validation_images",
        "train.size_calibration",
    }
    # By the number of steps: see `network_plan.choose_freezing` and `budget.choose_copies`.
    later = {"train.freeze", "train.copies", "train.unfreeze_start"}
    of_fpn = {"model.encoder", "model.width", "model.fine", "model.norms", "train.encoder_rate"}
    of_volumes = {"model.dimensions", "model.flat", "model.intensity", "model.spacing"}
    assert gaps == {
        *measured,
        *later,
        *of_fpn,
        *of_volumes,
        "model.config",
        "model.weights_origin",
        "train.unfreeze",
        "loss.ohem",
        "loss.cldice_classes",
        *(f"predict.{key}" for key in ("start", "stop", "smoothing", "video_masks", "regions")),
    }
    filled = {f"{s}.{k}" for s in plain for k, v in plain[s].items() if v != before[s][k]}
    assert filled - {"train.steps"} == set(reasons | more) - {"loss.cross_entropy", "loss.dice"}
    assert all((reasons | more).values())


DEEP = dataclasses.replace(
    FACTS,
    channels=1,
    dtype="uint16",
    mean=(457.0,),
    std=(263.2,),
    extremes=((54.0, 6615.0),),
    percentiles=((102.0, 398.0, 1393.0),),
    core=((102.0, 1393.0),),
    core_mean=(454.8,),
    core_std=(250.2,),
)


def test_nondeterminism_of_a_device_is_reported() -> None:
    assert "may differ in the last bits" in derive(UNET, FACTS, Machine("cuda", 8, True))[1]["train.device"]
    assert "bits" not in derive(UNET, FACTS, CPU)[1]["train.device"]


def test_the_loss_weights_have_reasons() -> None:
    _, reasons = derive(UNET, FACTS, CPU)
    assert reasons["loss.dice"] == "half of the loss: gives all classes equal weight; the rarest has 1 % of the pixels"
    other, reasons = derive(replace(UNET, loss={"dice": 0.8}), FACTS, CPU)
    assert (other.loss.cross_entropy, other.loss.dice) == (0.5, 0.8)
    assert not {"loss.cross_entropy", "loss.dice"} & set(reasons)


def test_outliers_are_clipped_and_excluded_from_mean_and_std() -> None:
    config, reasons = derive(UNET, DEEP, CPU)
    assert config.model.clip == [(102.0, 1393.0)]
    assert (config.model.mean, config.model.std) == ([454.8], [250.2])
    assert reasons["model.clip"] == (
        "the largest outlier is 20.9 standard deviations outside the range of 99 % of all pixels and 90 % of each "
        "class: values are clipped to it"
    )
    assert reasons["model.mean"].endswith(", clipped")


@pytest.mark.parametrize(
    "facts",
    [
        FACTS,
        dataclasses.replace(DEEP, extremes=((54.0, 2300.0),)),
        dataclasses.replace(DEEP, core=(), core_mean=(), core_std=()),  # of an older version
    ],
)
def test_values_without_outliers_are_not_clipped(facts: Fingerprint) -> None:
    config, reasons = derive(UNET, facts, CPU)
    assert config.model.clip == "none"
    assert reasons["model.clip"]
    assert config.model.mean == list(facts.mean)


def test_a_given_clip_is_kept() -> None:
    off, reasons = derive(replace(UNET, model={"clip": "none"}), DEEP, CPU)
    assert (off.model.clip, off.model.mean) == ("none", [457.0])
    assert "model.clip" not in reasons
    assert derive(replace(UNET, model={"mean": [0.0], "std": [1.0]}), DEEP, CPU)[0].model.clip == "none"
    own = derive(replace(UNET, model={"clip": [[0, 2000]]}), DEEP, CPU)[0]
    assert own.model.clip == [(0, 2000)]


def test_small_fractions_are_not_rounded_away() -> None:
    fractions = dataclasses.replace(DEEP, dtype="float32", core=((2e-6, 3e-5),), core_mean=(1.2345e-5,))
    fractions = dataclasses.replace(fractions, core_std=(4.321e-6,), extremes=((0.0, 1.0),))
    config, _ = derive(UNET, fractions, CPU)
    assert config.model.mean == pytest.approx([1.2345e-5], rel=1e-3)
    assert config.model.std == pytest.approx([4.321e-6], rel=1e-3)
    assert config.model.clip == [pytest.approx((2e-6, 3e-5), rel=1e-3)]


def test_weights_determine_the_clip_range() -> None:
    weights = dataclasses.replace(WHOLE, dtype="uint16", mean=(5.0,), std=(6.0,))
    assert derive(UNET, DEEP, CPU, weights)[0].model.clip == "none"
    clipped = dataclasses.replace(weights, clip=((1.0, 9.0),))
    assert derive(UNET, DEEP, CPU, clipped)[0].model.clip == [(1.0, 9.0)]


@pytest.mark.parametrize("machine", [CPU, Machine("cuda", 16, True)], ids=lambda m: m.device)
@pytest.mark.parametrize("side", [16, 28, 40, 64, 96, 100, 128, 256, 1000])
def test_the_coarsest_scale_has_four_cells_a_side(side: int, machine: Machine) -> None:
    facts = dataclasses.replace(FACTS, sizes=((side, side),) * 3)
    config, reasons = derive(UNET, facts, machine)
    features, stem = config.model.features or [], config.model.stem or 1
    assert min(config.train.crop or (0,)) // (stem * 2 ** len(features)) >= 4
    assert len(features) == 4 or "4 scales" in reasons["model.features"]
    assert len(features) == 4 or min(side, 256) / (stem * 2 ** (len(features) + 1)) < 4  # no fewer than necessary


def test_small_crops_have_fewer_scales() -> None:
    small = derive(replace(UNET, train={"crop": [64, 64]}), FACTS, CPU)[0]
    assert (small.model.stem, small.model.features) == (2, [16, 32, 64])
    speck = derive(UNET, dataclasses.replace(FACTS, sizes=((3, 5),) * 3), CPU)[0]
    assert (speck.model.features, speck.train.crop) == ([16], (2, 4))


def test_one_sided_classes_are_not_mirrored() -> None:
    body = dataclasses.replace(
        FACTS, row_spread=0.02, one_sided=(0.05, 1.0, 0.97), one_sided_by_chance=(0.02, 0.4, 0.45)
    )
    config = derived(body)
    assert config.augment.flip_horizontal == 0.0
    assert config.augment.flip_vertical == 0.5
    assert (config.augment.rotate or 0) <= 5
    _, reasons = settle(replace(derive(UNET, body, CPU)[0], train={"steps": 9}), body, 100)
    assert reasons["augment.flip_horizontal"] == "classes 1, 2 are always on the same side"
    few = dataclasses.replace(body, one_sided_by_chance=(0.02, 1.0, 0.9))
    assert derived(few).augment.flip_horizontal == 0.5
    mostly = dataclasses.replace(body, one_sided=(0.05, 0.8, None), one_sided_by_chance=(0.02, 0.3, None))
    assert derived(mostly).augment.flip_horizontal == 0.5


def test_objects_larger_than_a_crop_are_reported() -> None:
    huge = dataclasses.replace(FACTS, object_sizes=((1.0, 2.0, 3.0), (5.0, 90_000.0, 1e5), None))
    assert (
        "half of the regions of one class are larger than a crop (90000 pixels or more)"
        in derive(UNET, huge, CPU)[1]["train.crop"]
    )
    assert "regions" not in derive(UNET, FACTS, CPU)[1]["train.crop"]


def test_given_values_are_kept() -> None:
    given = replace(UNET, train={"crop": (96, 64), "learning_rate": 1e-4}, augment={"flip_vertical": 0.25})
    config, reasons = derive(given, FACTS, CPU)
    config, more = settle(replace(config, train={"steps": 100}), FACTS, 100)
    reasons |= more
    assert config.train.crop == (96, 64)
    assert config.train.learning_rate == 1e-4
    assert config.augment.flip_vertical == 0.25
    assert not {"train.crop", "train.learning_rate", "augment.flip_vertical"} & set(reasons)


def test_the_crop_is_a_multiple_of_the_stride_within_the_image() -> None:
    for sizes in ((360, 480), (40, 1000), (20, 20), (1000, 1000)):
        facts = dataclasses.replace(FACTS, sizes=(sizes, sizes, sizes))
        config = derived(facts)
        stride = (config.model.stem or 1) * 2 ** len(config.model.features or ())
        crop = config.train.crop or (0, 0)
        assert all(side % stride == 0 and side >= stride for side in crop)
        assert all(c <= max(s, stride) for c, s in zip(crop, sizes, strict=True))


def test_images_without_orientation_are_rotated_and_flipped() -> None:
    flat = derived(dataclasses.replace(FACTS, row_spread=0.02))
    assert flat.augment.flip_vertical == 0.5
    assert 30 < (flat.augment.rotate or 0) <= 45
    upright = derived()
    assert upright.augment.flip_vertical == 0.0
    assert (upright.augment.rotate or 0) <= 10


def test_augmentation_grows_with_the_number_of_passes() -> None:
    few, some, many = (derived(steps=steps).augment for steps in (20, 500, 100_000))
    assert few.scale == (1.0, 1.0)
    assert (few.rotate, few.brightness, few.noise) == (0, 0, 0)
    assert many.scale == (0.7, 1.5)
    assert 0 < (few.brightness or 0) + (some.brightness or 0) < (many.brightness or 0)


def test_the_number_of_passes_is_written_without_exponent() -> None:
    filled = derive(UNET, FACTS, CPU)[0]
    said = [settle(replace(filled, train={"steps": steps}), FACTS, 100)[1]["augment.noise"] for steps in (100, 10_000)]
    assert "is used about 1.5 times" in said[0]
    assert "is used about 152 times" in said[1]


def test_averaging_covers_about_a_tenth_of_the_run() -> None:
    decays = [derived(steps=steps).train.ema for steps in (10, 1000, 10**7)]
    assert decays == [0.8, pytest.approx(0.99), 0.9995]


def test_constant_bands_do_not_divide_by_zero() -> None:
    assert min(derived().model.std or []) > 0


@pytest.mark.parametrize(("thickness", "stem"), [((80.0, 1.2, None), 1), ((80.0, 12.0, 9.0), 2)])
def test_thin_classes_need_full_resolution(thickness: tuple, stem: int) -> None:
    assert derived(dataclasses.replace(FACTS, thickness=thickness)).model.stem == stem


def test_a_gpu_gets_the_published_size() -> None:
    config = derived(machine=Machine("cuda", 16, True))
    assert config.model.features == [64, 128, 256, 512]
    assert config.model.stem == 1
    assert (config.train.workers or 0) > 0


def test_a_narrow_head_learns_faster() -> None:
    assert head_rate(16)[0] == 32
    assert head_rate(64)[0] == 8
    assert head_rate(1000)[0] == 1


def test_rare_classes_are_weighted_by_the_inverse_square_root() -> None:
    weights = derived().loss.class_weights
    assert isinstance(weights, list)
    assert weights[2] / weights[0] == pytest.approx(90**0.5, rel=1e-2)
    assert sum(w * c for w, c in zip(weights, FACTS.pixel_counts, strict=True)) / 1000 == pytest.approx(1, abs=1e-2)
    assert derived(dataclasses.replace(FACTS, pixel_counts=(500, 300, 200))).loss.class_weights == "none"
    assert derived(dataclasses.replace(FACTS, pixel_counts=(990, 0, 10))).loss.class_weights[1] == 1.0


WHOLE = InitialWeights("w", "MIT", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_weights_determine_licence_normalisation_and_lower_rates() -> None:
    config, reasons = derive(UNET, FACTS, CPU, WHOLE)
    assert (config.model.license, config.model.mean, config.model.std) == ("MIT", [1, 2, 3], [4, 5, 6])
    fresh, _ = derive(UNET, FACTS, CPU)
    assert config.train.learning_rate == pytest.approx(0.4 * (fresh.train.learning_rate or 0))
    assert (config.train.layer_decay, config.train.head_warmup) == (0.9, 0.05)
    assert "0.4 times the rate for random weights" in reasons["train.learning_rate"]
    assert head_rate(16, WHOLE)[0] == pytest.approx(head_rate(16)[0] / 0.4)  # as fast as a new head
    assert head_rate(1000, WHOLE)[0] == 10.0


def test_licence_and_origin_of_weights_override_the_configuration() -> None:
    said = Config.model_validate({"model": {"license": "user", "weights_origin": "another network"}})
    assert derive(said, FACTS, CPU, WHOLE)[0].model.license == "MIT"
    assert derive(said, FACTS, CPU, WHOLE)[0].model.weights_origin is None
    known = dataclasses.replace(WHOLE, origin="someone, on ImageNet")
    assert derive(said, FACTS, CPU, known)[0].model.weights_origin == "someone, on ImageNet"


def test_a_pretrained_head_has_the_normal_rate() -> None:
    known = dataclasses.replace(WHOLE, head_new=False)
    config, reasons = derive(UNET, FACTS, CPU, known)
    assert config.train.head_warmup == 0.0
    assert reasons["train.head_warmup"].endswith("the head was trained on these classes")
    assert head_rate(16, known)[0] == 1.0


def test_a_new_decoder_has_the_rates_of_a_new_network() -> None:
    encoder = dataclasses.replace(WHOLE, encoder_only=True)
    config, _ = derive(UNET, FACTS, CPU, encoder)
    fresh, _ = derive(UNET, FACTS, CPU)
    assert config.train.learning_rate == fresh.train.learning_rate
    assert config.train.head_warmup == 0.0
    assert config.train.layer_decay == 0.9
    assert head_rate(16, encoder) == head_rate(16)


def test_normalisation_for_another_pixel_type_is_not_used() -> None:
    other = dataclasses.replace(WHOLE, dtype="uint16")
    assert derive(UNET, FACTS, CPU, other)[0].model.mean == derive(UNET, FACTS, CPU)[0].model.mean
