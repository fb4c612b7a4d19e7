"""The whole configuration as one typed, frozen tree, which is one YAML file: load, override, explain.

Comes in: a YAML file or mapping and `a.b=c` overrides. Goes out: a frozen `Config`; written back as YAML in which every
derived value says why in a comment. Knows nothing of data sets, models or machines: what is `null` here is derived
from the data later, by those who know them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pixelwise.errors import ConfigError, DataError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Reasons = dict[str, str]


_UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
_EXPECTED = {"missing": "a value", "model_type": "keys and values", "list_type": "a list", "tuple_type": "a list"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `yes` and `off` where a number is meant: they would count as 1 and 0."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind is not Any and bool not in (kind, *get_args(kind)):
            raise ValueError("a number or a word, not yes or no")
        return value


class PartConfig(_Section):
    """Name the files of one split: globs relative to the data set's root."""

    images: str | list[str]
    masks: str | None = Field(None, description="template with {stem}, {parent}, {name}; or a glob with equal stems")
    valid: str | None = Field(None, description="template of a mask that is zero where pixels do not count")


class SplitConfig(_Section):
    """Say how one pool is divided into train, val and test: by group, reproducibly."""

    val: Share = 0.2
    test: Share = 0.0
    seed: int = 0


class DataConfig(_Section):
    """Name a data set: a folder, or images and masks by glob."""

    root: str | None = Field(
        None, description="folder that the paths start from; the YAML file's own folder where null"
    )
    images: str | list[str] | None = Field(None, description="globs of one pool that `split` divides")
    masks: str | None = None
    valid: str | None = None
    train: PartConfig | str | None = None
    val: PartConfig | str | None = None
    test: PartConfig | str | None = None
    split: SplitConfig = SplitConfig()
    group: str | None = Field(
        None,
        description="what must stay together: the first group of a regular expression on the path, or a .csv table image,group",
    )
    labels: Any = Field(None, description="path of a labels.yaml, a list of names, or a mapping")
    mask_values: Any = Field(
        None, description="how mask pixels become class ids: null, {threshold: 128}, {0: 0, 255: 1}, or {colours: true}"
    )
    skip_bad: bool = False


class ModelConfig(_Section):
    """Choose the network and its size."""

    name: str = "unet"
    features: list[Positive] | None = Field(None, description="channels per scale, finest first")
    up: Literal["transposed", "bilinear"] | None = None
    stem: Literal[1, 2, 4] | None = Field(
        None, description="1: full resolution; 2, 4: the first scale works on patches"
    )
    mean: list[float] | None = Field(None, description="per band, raw pixel values")
    std: list[Annotated[float, Field(gt=0)]] | None = None


class AugmentConfig(_Section):
    """Choose what may happen to a training picture."""

    flip_horizontal: Share | None = Field(None, description="probability")
    flip_vertical: Share | None = None
    rotate: Annotated[float, Field(ge=0, le=180)] | None = Field(None, description="largest angle, degrees")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = Field(
        None, description="smallest and largest zoom"
    )
    brightness: NonNegative | None = Field(None, description="largest shift, in standard deviations of the band")
    contrast: Share | None = Field(None, description="largest relative change")
    noise: NonNegative | None = Field(
        None, description="largest standard deviation, in standard deviations of the band"
    )

    @field_validator("scale")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[0] > value[1]:
            raise ValueError("the smallest zoom first")
        return value


class LossConfig(_Section):
    """Weigh the terms of the loss."""

    cross_entropy: NonNegative = 0.5
    dice: NonNegative = 0.5
    focal: NonNegative = 0.0
    tversky: NonNegative = 0.0
    focal_gamma: NonNegative = 2.0
    tversky_alpha: Share = 0.3
    tversky_beta: Share = 0.7
    class_weights: Literal["none", "inverse", "median", "effective"] | list[NonNegative] | None = Field(
        None, description="none, inverse, median, effective, or one weight per class"
    )


class TrainConfig(_Section):
    """Say how long and how the weights are learned."""

    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0
    steps: Positive | None = None
    recounts: tuple[tuple[Positive, Positive], ...] = ()  # see `training.schedule`
    crop: tuple[Positive, Positive] | None = Field(None, description="(height, width) of a training crop, pixels")
    batch_size: Positive | None = None
    accumulate: Positive = Field(1, description="batches whose gradients make one step")
    class_crops: Share | None = Field(None, description="share of the crops that are centred on a drawn class")
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    head_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="factor on the head's learning rate")
    weight_decay: NonNegative = 0.01
    warmup: Share = Field(0.05, description="share of the steps")
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    ema: Share | None = Field(None, description="decay per step of the averaged weights; 0: none")
    precision: Literal["fp32", "bf16"] | None = None
    channels_last: bool | None = None
    validations: Positive | None = Field(None, description="how often the validation part is scored")
    workers: Annotated[int, Field(ge=0)] | None = Field(None, description="processes that prepare batches")
    cache: bool | None = Field(None, description="keep decoded pictures in memory")
    device: str | None = Field(None, description="cpu, cuda, …")


class PredictConfig(_Section):
    """Say how whole pictures are predicted."""

    tile: tuple[Positive, Positive] | None = Field(None, description="(height, width); larger pictures are tiled")
    overlap: Share = Field(0.25, description="share of a tile that neighbours have in common")
    flips: bool = Field(False, description="average over mirrored copies")


class Config(_Section):
    """Hold everything that makes a run; equal configs on equal data give equal weights."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    predict: PredictConfig = PredictConfig()


def config_from_dict(plain: Mapping[str, Any], where: object = "config") -> Config:
    """Check a plain mapping and freeze it.

    Raises:
        ConfigError: an unknown key (the nearest valid one is named) or a value of the wrong kind.
    """
    try:
        return Config.model_validate(dict(plain))
    except ValidationError as error:
        raise _explain(error, where, None) from error


def load_config(path: Path) -> Config:
    """Read a configuration from a YAML file.

    Raises:
        ConfigError: a missing file, broken YAML, an unknown key (with line and nearest valid key), a wrong value.
    """
    plain, lines = read_yaml(path)
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise _explain(error, path, lines) from error


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a YAML mapping, and the line on which each dotted key stands.

    Raises:
        ConfigError: a missing file, broken YAML, a key that stands twice, or something that is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        plain = yaml.safe_load(text)
        keys = list(_key_lines(yaml.compose(text, Loader=yaml.SafeLoader)))
    except FileNotFoundError as error:
        raise ConfigError(path, expected="a YAML file", found="nothing", do="Check the path.") from error
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(path, expected="a readable YAML file", found=problem, do="Correct the file.") from error
    if plain is None:
        return {}, {}
    if not isinstance(plain, dict):
        raise ConfigError(path, expected="keys and values", found=type(plain).__name__, do="Write `key: value` lines.")
    lines: dict[str, int] = {}
    for key, line in keys:
        if key in lines:
            raise ConfigError(
                f"{path}:{line}", expected="every key once", found=f"`{key}` on line {lines[key]}, too", do="Keep one."
            )
        lines[key] = line
    return plain, lines


def _key_lines(node: Any, prefix: str = "") -> Iterable[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _key_lines(value, f"{name}.")


def with_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """Apply `a.b=c` texts to a configuration; `c` is read as YAML.

    Raises:
        ConfigError: no `=`, an unknown key, or a value of the wrong kind.
    """
    plain = config.model_dump()
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set {text}", expected="key=value", found=text, do="Write --set train.steps=100.")
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--set {text}", expected="a YAML value", found=value, do="Quote the value.") from error
        branch, *rest = key.strip().split(".")
        place: Any = plain
        for step in rest:
            if place.get(branch) is None:
                place[branch] = {}
            place = place[branch]
            if not isinstance(place, dict):
                raise ConfigError(
                    f"--set {text}",
                    expected=f"{branch!r} to hold keys",
                    found=repr(place),
                    do="Name a key that exists.",
                )
            branch = step
        place[branch] = parsed
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise _explain(error, "--set", None) from error


def read_request(data: Path, overrides: Iterable[str] = ()) -> tuple[Config, Path]:
    """Read what a DATA argument names: a folder, a `data.yaml`, or a recipe (a YAML with a `data:` key).

    Args:
        data: the argument.
        overrides: `a.b=c` texts; a relative `data.root` among them starts from the current folder.

    Returns:
        The configuration, and the folder that relative paths in it start from.

    Raises:
        DataError: nothing there, or neither a folder nor YAML.
        ConfigError: a key or value that is wrong.
    """
    overrides = tuple(overrides)
    if not data.is_dir() and not (data.is_file() and data.suffix.lower() in {".yaml", ".yml", ".json"}):
        found = f"a file of type {data.suffix or 'unknown'}" if data.is_file() else "nothing"
        raise DataError(data, expected="a folder, a data.yaml or a recipe", found=found, do="Check the path.")
    if data.is_dir():
        described = next((data / name for name in ("data.yaml", "data.yml") if (data / name).is_file()), None)
        if described is None:
            return _overridden(Config(), overrides), data
        data = described
    plain, lines = read_yaml(data)
    if "data" in plain:
        config = load_config(data)
    else:
        try:
            config = Config(data=DataConfig.model_validate(plain))
        except ValidationError as error:
            raise _explain(error, data, lines, DataConfig) from error
    return _overridden(config, overrides), data.parent


def _overridden(config: Config, overrides: tuple[str, ...]) -> Config:
    changed = with_overrides(config, overrides)
    if any(text.partition("=")[0].strip() == "data.root" for text in overrides) and changed.data.root:
        return replace(changed, data={"root": str(Path(changed.data.root).resolve())})
    return changed


def replace(config: Config, **sections: Mapping[str, Any]) -> Config:
    """Give a config with some values set: `replace(config, train={"steps": 100})`."""
    plain = config.model_dump()
    for name, values in sections.items():
        plain[name] = {**plain.get(name, {}), **values}
    return config_from_dict(plain)


def dump_config(config: Config, reasons: Mapping[str, str]) -> str:
    """Write the tree as YAML; behind every value that was derived stands its reason as a comment.

    Args:
        config: the resolved tree.
        reasons: dotted key → why the value is what it is.
    """
    lines = ["# Everything that made this run. Values with a comment were derived, the others given or defaults."]
    for section, values in config.model_dump().items():
        lines.append(f"{section}:")
        for key, value in values.items():
            reason = " ".join(reasons.get(f"{section}.{key}", "").split())
            text = str(yaml.dump(value, Dumper=_Dumper, **_FLOW)).removesuffix("\n").removesuffix("\n...")
            lines.append(f"  {key}: {text}" + (f"  # {reason}" if reason else ""))
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Write tuples as lists. Pydantic's JSON form does, too, but makes text of keys that are numbers."""


def _quoted_where_needed(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Put texts with unusual line ends in double quotes, where they are escaped: PyYAML reads them back as spaces."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if set(text) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)
_Dumper.add_representer(str, _quoted_where_needed)
_FLOW: Any = {"default_flow_style": True, "allow_unicode": True, "width": 1e6, "sort_keys": False}


def _explain(
    error: ValidationError, where: object, lines: Mapping[str, int] | None, tree: type[BaseModel] = Config
) -> ConfigError:
    problems = error.errors()
    problem = next((p for p in problems if p["type"] in _UNKNOWN_KEY), problems[0])
    unknown = problem["type"] in _UNKNOWN_KEY
    # The end of an unknown key's place is the user's own word, whatever it looks like.
    own = problem["loc"][-1:] if unknown else ()
    path = problem["loc"][: len(problem["loc"]) - len(own)]
    names = [str(part) for part in path if not _is_branch_tag(part)] + [str(part) for part in own]
    key = ".".join(names)
    above = [".".join(names[:depth]) for depth in range(len(names), 0, -1)]
    line = next((lines[name] for name in above if name in lines), None) if lines else None
    place = f"{where}:{line}" if line else str(where)
    if unknown:
        valid = _keys_at(tree, names[:-1])
        near = difflib.get_close_matches(names[-1], valid, 1, 0.4)
        hint = f"Did you mean `{near[0]}`?" if near else "Remove it."
        return ConfigError(place, expected=f"one of {', '.join(valid)}", found=f"unknown key `{key}`", do=hint)
    missing = problem["type"] == "missing"
    message = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return ConfigError(
        f"{place}: {key}" if key else place,
        expected=_EXPECTED.get(problem["type"], message),
        found="none" if missing else repr(problem.get("input")),
        do="Add it." if missing else "Correct the value.",
    )


def _is_branch_tag(part: int | str) -> bool:
    """Tell pydantic's names for the branches of a union from keys."""
    return isinstance(part, str) and (part.endswith("Config") or part in {"str", "list[str]"} or "[" in part)


def _keys_at(model: Any, names: list[str]) -> list[str]:
    for name in names:
        field = model.model_fields.get(name)
        if field is None:
            return []
        options = get_args(field.annotation) if get_origin(field.annotation) is not None else (field.annotation,)
        sections = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
