import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise import config as configs
from pixelwise.config import (
    Config,
    DataConfig,
    ResolvedAugment,
    SplitFilesConfig,
    draft,
    dump_config,
    load_config,
    read_request,
    read_yaml,
    resolve,
    with_overrides,
)
from pixelwise.config.tree import PredictConfig
from pixelwise.errors import ConfigError, DataError


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Write a text as a configuration and load it."""

    def load(text: str) -> Config:
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "c.yaml")

    return load


def set_(*overrides: str) -> Config:
    return with_overrides(Config(), overrides)


# Reading


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "train: {}\n", "\ufeffdata: {}\n"])
def test_missing_values_have_defaults(written: Any, text: str) -> None:
    assert written(text) == Config()


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", "0.0001", '"0.0001"'])
def test_notations_of_a_learning_rate(written: Any, text: str) -> None:
    # YAML 1.1 reads 1e-4, without a point, as text.
    assert written(f"train:\n  learning_rate: {text}\n").train.learning_rate == 1e-4
    assert set_(f"train.learning_rate={text}").train.learning_rate == 1e-4


def test_every_kind_of_value(written: Any) -> None:
    config = written(
        "data: {images: ['a/*.png', b.png], train: {images: t/*.png, masks: 'm/{stem}.png'}, mask_values: {0: 0, 255: 1}}\n"
        "model: {features: [8, 16], up: bilinear, stem: 2, mean: [1, 2.5]}\n"
        "train: {crop: [32, 48], cache: no, precision: bf16}\n"
        "augment: {scale: [0.5, 2]}\n"
        "loss: {class_weights: [1, 0.5]}\n"
    )
    assert config.data.images == ["a/*.png", "b.png"]
    assert config.data.train == SplitFilesConfig(images="t/*.png", masks="m/{stem}.png")
    assert config.data.mask_values == {0: 0, 255: 1}
    assert (config.model.features, config.model.up, config.model.stem) == ([8, 16], "bilinear", 2)
    assert (config.train.crop, config.train.cache, config.train.precision) == ((32, 48), False, "bf16")
    assert config.augment.scale == (0.5, 2.0)
    assert config.loss.class_weights == [1.0, 0.5]
    assert written("loss: {class_weights: none}").loss.class_weights == "none"


PREDICT = ", ".join(PredictConfig.model_fields)
TRAIN = (
    "seed, steps, recounts, crop, batch_size, accumulate, class_crops, learning_rate, head_rate, layer_decay, freeze, unfreeze, unfreeze_start, copies, encoder_rate, head_warmup, weight_decay, warmup, clip, ema, precision, "
    "channels_last, validations, validation_images, size_calibration, workers, cache, device"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# a run\ntrain:\n  seed: 1\n  crops: 32\n",
            f":4: expected one of {TRAIN}, found unknown key `train.crops`. Did you mean 'crop'?",
        ),
        (
            "trian:\n  steps: 8\n",
            ":1: expected one of data, model, train, augment, loss, predict, evaluate, measure, found unknown key `trian`. "
            "Did you mean 'train'?",
        ),
        (
            "data:\n  train:\n    images: a\n    mask: b\n",
            ":4: expected one of images, masks, valid, found unknown key `data.train.mask`. Did you mean 'masks'?",
        ),
        (
            "data:\n  split:\n    value: 0.1\n",
            ":3: expected one of val, test, seed, anew, block, buffer, found unknown key `data.split.value`. Did you mean 'val'?",
        ),
        # An unknown key is reported before an invalid value.
        (
            "model:\n  up: sideways\npredict:\n  qqqqq: 1\n",
            f":4: expected one of {PREDICT}, found unknown key `predict.qqqqq`. Remove it.",
        ),
        # Keys that look like names of types.
        (
            "str: 3\n",
            ":1: expected one of data, model, train, augment, loss, predict, evaluate, measure, found unknown key `str`. "
            "Did you mean 'train'?",
        ),
        (
            "predict:\n  QqConfig: 3\n",
            f":2: expected one of {PREDICT}, found unknown key `predict.QqConfig`. Did you mean 'confidence'?",
        ),
        (
            "predict:\n  1: 3\n",
            f":2: expected one of {PREDICT}, found unknown key `predict.1`. Remove it.",
        ),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one(
    tmp_path: Path, written: Any, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        written(text)
    assert str(error.value) == f"{tmp_path / 'c.yaml'}{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  steps: 0\n", ":2: train.steps: expected greater than or equal to 1, found 0."),
        ("train:\n  steps: 1.5\n", ":2: train.steps: expected a valid integer, got a number with a fractional part"),
        ("train:\n  steps: many\n", ":2: train.steps: expected a valid integer, unable to parse string as an integer"),
        ("train:\n  steps: yes\n", ":2: train.steps: expected a number or a word, not yes or no, found True."),
        ("train:\n  seed: no\n", ":2: train.seed: expected a number or a word, not yes or no, found False."),
        ("model:\n  stem: yes\n", ":2: model.stem: expected a number or a word, not yes or no, found True."),
        ("train:\n  cache: 3\n", ":2: train.cache: expected a valid boolean, unable to interpret input, found 3."),
        ("train:\n  learning_rate: .nan\n", ":2: train.learning_rate: expected a finite number, found nan."),
        ("train:\n  learning_rate: .inf\n", ":2: train.learning_rate: expected a finite number, found inf."),
        ("train:\n  learning_rate: 0\n", ":2: train.learning_rate: expected greater than 0, found 0."),
        ("train:\n  crop: 32\n", ":2: train.crop: expected a list, found 32."),
        (
            "train:\n  seed: 0\n  crop: [32]\n",
            ":3: train.crop: expected (height, width) or (depth, height, width), found [32].",
        ),
        ("model:\n  features: [8, 0]\n", ":2: model.features.1: expected greater than or equal to 1, found 0."),
        ("model:\n  up: nearest\n", ":2: model.up: expected 'transposed' or 'bilinear', found 'nearest'."),
        ("train:\n", ":1: train: expected keys and values, found None."),
        ("data:\n  train: 3\n", ":2: data.train: expected keys and values, found 3."),
        ("data:\n  train:\n    masks: m\n", ":2: data.train.images: expected a value, found none. Add it."),
        ("data:\n  images: 3\n", ":2: data.images: expected a valid string, found 3."),
        ("augment:\n  scale: [2, 0.5]\n", ":2: augment.scale: expected the smallest zoom first, found [2, 0.5]."),
        ("augment:\n  rotate: 181\n", ":2: augment.rotate: expected less than or equal to 180, found 181."),
        (
            "loss:\n  class_weights: foo\n",
            ":2: loss.class_weights: expected 'none', 'inverse', 'median' or 'effective'",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_line(tmp_path: Path, written: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        written(text)
    assert str(error.value).startswith(f"{tmp_path / 'c.yaml'}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [\n", ": expected a readable YAML file, found while parsing a flow node"),
        (b"\xff\xfe\x00", ": expected a readable YAML file, found 'utf-8' codec"),
        (b"a: 2024-13-45\n", ": expected a readable YAML file, found month must be in 1..12. Correct the file."),
        (b"[" * 500, ": expected a readable YAML file, found maximum recursion depth exceeded"),
        (b"a: &x\n  b: *x\n", ": expected a readable YAML file, found maximum recursion depth exceeded"),
        (
            b"a: !!python/object/apply:os.getcwd []\n",
            ": expected a readable YAML file, found could not determine a con",
        ),
        (b"a: 1\n---\na: 2\n", ": expected a readable YAML file, found expected a single document"),
        (b"- a\n- b\n", ": expected keys and values, found list. Write `key: value` lines."),
        (b"a:\n  b: 1\n  c: 1\n  b: 2\n", ":4: expected unique keys, found `a.b` also on line 2. Remove one of them."),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "c.yaml")
    assert str(error.value).startswith(f"{tmp_path / 'c.yaml'}{message}")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: expected a YAML file, found nothing\. Check the path\."):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"expected a readable YAML file, found .*directory"):
        load_config(tmp_path)


def test_the_lines_of_all_keys(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a:\n  b: 1\n\n  c: {d: 2}\n")
    assert read_yaml(tmp_path / "c.yaml") == (
        {"a": {"b": 1, "c": {"d": 2}}},
        {"a": 1, "a.b": 2, "a.c": 4, "a.c.d": 4},
    )


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.seed = 1


# Overrides


def test_overrides_reach_everything() -> None:
    config = set_("train.steps=7", "train.crop=[32,48]", "data.root=a=b c", "model.up=null", "data.skip_bad=true")
    assert (config.train.steps, config.train.crop, config.data.root) == (7, (32, 48), "a=b c")
    assert (config.model.up, config.data.skip_bad) == (None, True)
    assert set_("train.steps=7", "train.steps=").train.steps is None
    assert set_("train.steps=7", "train.steps=8").train.steps == 8


def test_overrides_reach_into_sections_that_are_null() -> None:
    config = set_("data.train.images=t/*.png", "data.train.masks=m/{stem}.png", "data.mask_values.threshold=128")
    assert config.data.train == SplitFilesConfig(images="t/*.png", masks="m/{stem}.png")
    assert config.data.mask_values == {"threshold": 128}
    assert set_("data.labels={names: [a, b], ids: [0, 255]}").data.labels == {"names": ["a", "b"], "ids": [0, 255]}


def test_overrides_keep_other_values() -> None:
    before = configs.replace(Config(), data={"mask_values": {0: 0, 255: 1}, "labels": {"names": {0: "a", 7: "b"}}})
    after = with_overrides(before, ["train.seed=3"])
    # Numeric keys stay numbers.
    assert after.data == before.data
    assert after.data.mask_values == {0: 0, 255: 1}
    assert after.train.seed == 3
    assert before.train.seed == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train", "--set train: expected key=value, found train. Write --set train.steps=100."),
        ("train.steps=[", "--set train.steps=[: expected a YAML value, found [. Quote the value."),
        (
            "data.root=2024-13-45",
            "--set data.root=2024-13-45: expected a YAML value, found 2024-13-45. Quote the value.",
        ),
        ("train=3", "--set: train: expected keys and values, found 3. Correct the value."),
        ("train.seed.x=3", "--set train.seed.x=3: expected a section 'seed', found the value 0. Name an existing key."),
        ("train.stepps=3", f"--set: expected one of {TRAIN}, found unknown key `train.stepps`. Did you mean 'steps'?"),
        (
            "trian.steps=3",
            "--set: expected one of data, model, train, augment, loss, predict, evaluate, measure, found unknown key `trian`. "
            "Did you mean 'train'?",
        ),
        (
            "data.train.image=a",
            "--set: expected one of images, masks, valid, found unknown key `data.train.image`. Did you mean 'images'?",
        ),
        ("train.steps=0", "--set: train.steps: expected greater than or equal to 1, found 0. Correct the value."),
        (
            "=3",
            "--set: expected one of data, model, train, augment, loss, predict, evaluate, measure, found unknown key ``. Remove it.",
        ),
    ],
)
def test_invalid_overrides_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        set_(text)
    assert str(error.value) == message


def test_replace_checks_what_it_sets() -> None:
    assert configs.replace(Config(), train={"steps": 9}, model={"stem": 4}).train.steps == 9
    with pytest.raises(ConfigError, match=r"config: train\.steps: expected greater than or equal to 1"):
        configs.replace(Config(), train={"steps": 0})
    with pytest.raises(ConfigError, match=r"unknown key `trian`\. Did you mean 'train'"):
        configs.replace(Config(), trian={"steps": 1})


# Resolving


GIVEN = {
    "model": {"mean": [0.0], "std": [1.0]},
    "train": {"steps": 9, "validations": 1, "crop": (8, 8), "batch_size": 2, "learning_rate": 1e-3},
}


def test_a_resolved_configuration_has_defaults_for_values_that_older_versions_lack() -> None:
    config = resolve(configs.replace(Config(), **GIVEN))
    assert (config.train.steps, config.train.crop, config.train.device) == (9, (8, 8), "cpu")
    assert (config.train.layer_decay, config.train.freeze, config.model.weights) == (1.0, "none", "none")
    assert (config.augment, config.predict.tile) == (ResolvedAugment(), (512, 512))
    assert (config.train.unfreeze, config.loss.ohem, config.model.features) == (None, None, None)


@pytest.mark.parametrize(("section", "key"), [(section, key) for section in GIVEN for key in GIVEN[section]])
def test_an_unset_value_is_named(section: str, key: str) -> None:
    config = configs.replace(Config(), **GIVEN)
    with pytest.raises(ConfigError, match=rf"^run/config\.yaml: expected a value of {section}\.{key}, found none\."):
        resolve(configs.replace(config, **{section: {key: None}}), "run/config.yaml")


def test_a_draft_has_placeholders_and_keeps_given_values() -> None:
    config = draft(configs.replace(Config(), train={"steps": 7, "precision": "bf16"}))
    assert (config.train.steps, config.train.precision, config.train.batch_size) == (7, "bf16", 1)


def test_a_resolved_configuration_is_written_and_read_like_any_other(tmp_path: Path) -> None:
    config = resolve(configs.replace(Config(), **GIVEN))
    (tmp_path / "c.yaml").write_text(dump_config(config, {}))
    assert resolve(load_config(tmp_path / "c.yaml")) == config
    assert [list(values) for values in config.model_dump().values()] == [
        list(values) for values in Config().model_dump().values()
    ]
    assert type(configs.replace(config, train={"steps": 8})) is type(config)


# Requests


def test_a_folder_without_a_description(tmp_path: Path) -> None:
    assert read_request(tmp_path) == (Config(), tmp_path)


def test_a_data_yaml_in_its_folder_or_by_name(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("images: p/*.png\n")
    for path in (tmp_path, tmp_path / "data.yaml"):
        config, base = read_request(path, ["train.seed=4"])
        assert (config.data.images, config.train.seed, base) == ("p/*.png", 4, tmp_path)


def test_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data:\n  images: p/*.png\ntrain:\n  steps: 5\n")
    config, base = read_request(tmp_path / "r.yaml")
    assert (config.data.images, config.train.steps, base) == ("p/*.png", 5, tmp_path)


def test_a_root_that_is_set_starts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.yaml").write_text("root: images\n")
    assert read_request(tmp_path / "sub")[0].data.root == "images"
    assert read_request(tmp_path / "sub", ["data.root=images"])[0].data.root == str(tmp_path / "images")


def test_invalid_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"expected a folder, a data\.yaml, a recipe or an annotation file \(\.json, \.xml\), found nothing\. Check",
    ):
        read_request(tmp_path / "none")
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"found a file of type \.png"):
        read_request(tmp_path / "a.png")
    (tmp_path / "data.yaml").write_text("\nimages: a\nmaks: b\n")
    with pytest.raises(ConfigError) as error:
        read_request(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'data.yaml'}:3: expected one of {', '.join(DataConfig.model_fields)}, found unknown key `maks`. "
        "Did you mean 'masks'?"
    )


# Writing

WORDS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=8) | st.sampled_from(
    [
        "no",
        "null",
        "~",
        "1e-4",
        "0x10",
        "1:30",
        "# x",
        "a # b",
        "a: b",
        " a",
        "- a",
        "'",
        '"',
        "a\nb",
        "{",
        "2024-01-01",
        "a\x85b",
        "a\u2028b ",
    ]
)


@settings(deadline=None)
@given(
    root=WORDS,
    names=st.lists(WORDS, max_size=3),
    ids=st.dictionaries(st.integers(0, 300), st.integers(0, 9), max_size=3),
    rate=st.floats(1e-12, 1e12),
    features=st.none() | st.lists(st.integers(1, 2048), max_size=4),
    scale=st.none() | st.tuples(st.floats(0.01, 1), st.floats(1, 100)),
    reason=st.text(max_size=20),
)
def test_a_written_configuration_is_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, reason: str, **drawn: Any
) -> None:
    config = configs.replace(
        Config(),
        data={"root": drawn["root"], "labels": {"names": drawn["names"]}, "mask_values": drawn["ids"]},
        model={"features": drawn["features"]},
        train={"learning_rate": drawn["rate"], "crop": (3, 4)},
        augment={"scale": drawn["scale"]},
    )
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    printable = "".join(c for c in reason if c.isprintable() or c in "\n\t ")
    path.write_text(dump_config(config, {"train.crop": printable, "data.root": printable}), encoding="utf-8")
    assert load_config(path) == config


def test_every_reason_follows_its_value() -> None:
    reasons = {
        f"{section}.{key}": f"because of {section} {key}: # 1 ×"
        for section, values in Config().model_dump().items()
        for key in values
    }
    text = dump_config(Config(), reasons)
    for name, reason in reasons.items():
        section, key = name.split(".")
        block = text.partition(f"\n{section}:\n")[2]
        line = next(line for line in block.splitlines() if line.startswith(f"  {key}: "))
        assert line.endswith(f"  # {reason}")
    assert yaml.safe_load(text) == yaml.safe_load(dump_config(Config(), {}))


def test_a_value_without_a_reason_has_no_comment() -> None:
    text = dump_config(set_("train.steps=5"), {"train.seed": "one\nline"})
    assert "  steps: 5\n" in text
    assert "  seed: 0  # one line\n" in text
    assert text.count("#") == 2  # the reason, and the first line


def test_the_written_form_has_every_key() -> None:
    plain = yaml.safe_load(dump_config(Config(), {}))
    assert plain == json.loads(json.dumps(configs.Config().model_dump()))  # tuples are lists in a file


@pytest.mark.parametrize(
    ("name", "text", "annotations", "root"),
    [
        ("a.xml", "<annotations/>", "a.xml", "."),
        ("annotations/a.xml", "<annotations/>", "annotations/a.xml", "."),
        ("x/[a].json", '[{"data": {}}]', "x/[[]a].json".removeprefix("x/"), "x"),
        ("coco.json", '{"images": [{"id": 1}], "annotations": [], "categories": []}', "coco.json", "."),
        ("labelme.json", '{"shapes": [], "imagePath": "a.png", "version": "5.0"}', "labelme.json", "."),
    ],
)
def test_an_annotation_file_is_data(tmp_path, name, text, annotations, root):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    config, base = read_request(tmp_path / name)
    assert config.data.annotations == annotations
    assert base.resolve() == (tmp_path / root).resolve()
    assert list(base.glob(annotations)) == [base / name.removeprefix(f"{root}/")]


@pytest.mark.parametrize(
    "text", ['{"images": "a/*.png", "masks": "b/{stem}.png"}', '{"images": ["a/*.png"]}', '{"data": {}}', "{}"]
)
def test_a_configuration_in_json_is_a_configuration(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    assert read_request(tmp_path / "data.json")[0].data.annotations is None
