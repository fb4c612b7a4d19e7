"""A configuration as a YAML file: load, override, explain.

Comes in: a YAML file or mapping and `a.b=c` overrides. Goes out: a frozen `Config`; written back as YAML in which every
derived value says why in a comment. Knows nothing of data sets, models or machines.
"""

from __future__ import annotations

import difflib
import glob
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pixelwise.config.tree import Config, DataConfig
from pixelwise.errors import ConfigError, DataError

Reasons = dict[str, str]

_MOST_VALUES = 1_000_000
_UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
_EXPECTED = {"missing": "a value", "model_type": "keys and values", "list_type": "a list", "tuple_type": "a list"}


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
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _weight(node, {}) > _MOST_VALUES:
            found = "aliases that stand for more"
            raise ConfigError(path, expected=f"at most {_MOST_VALUES:,} values", found=found, do="Write it out.")
        plain = yaml.safe_load(text)
        keys = list(_key_lines(node))
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


def _weight(node: Any, known: dict[int, int]) -> int:
    """Count the values that a node stands for, aliases followed: a few lines can stand for billions."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_weight(part, known) for part in parts)
    return known[id(node)]


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
    """Read what a DATA argument names: a folder, a `data.yaml`, a recipe (a YAML with a `data:` key), or an annotation file.

    The YAML of a YOLO data set is an annotation file, too, be it called `data.yaml`.

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
    if _is_annotation(data):
        # COCO lays its files into a folder of their own, beside those of the images.
        root = data.absolute().parent.parent if data.absolute().parent.name == "annotations" else data.parent
        named = glob.escape(data.absolute().relative_to(root.absolute()).as_posix())
        return _overridden(Config(data=DataConfig(annotations=named)), overrides), root
    if not data.is_dir() and not (data.is_file() and data.suffix.lower() in {".yaml", ".yml", ".json"}):
        found = f"a file of type {data.suffix or 'unknown'}" if data.is_file() else "nothing"
        expected = "a folder, a data.yaml, a recipe or an annotation file (.json, .xml)"
        raise DataError(data, expected=expected, found=found, do="Check the path.")
    if data.is_dir():
        described = next((data / name for name in ("data.yaml", "data.yml") if (data / name).is_file()), None)
        if described is None:
            return _overridden(Config(), overrides), data
        data = described
    return _overridden(_described(data), overrides), data.parent


def _described(data: Path) -> Config:
    """Read a `data.yaml`, a recipe, or the YAML of a YOLO data set."""
    plain, lines = read_yaml(data)
    if "data" in plain:
        return load_config(data)
    if is_yolo(plain):
        home = yolo_home(data, plain) or data.parent
        lies = None if home == data.parent else str(home.absolute())
        return Config(data=DataConfig(format="yolo", root=lies, annotations=str(data.absolute())))
    try:
        return Config(data=DataConfig.model_validate(plain))
    except ValidationError as error:
        raise _explain(error, data, lines, DataConfig) from error


def _is_annotation(data: Path) -> bool:
    """Tell an annotation file from a configuration: XML, or JSON that holds none of a configuration's keys.

    A configuration may be JSON, too, since that is YAML.
    """
    if not data.is_file() or data.suffix.lower() not in {".xml", ".json"}:
        return False
    if data.suffix.lower() == ".xml":
        return True
    try:
        plain = json.loads(data.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # told as a YAML file that cannot be read
    if not isinstance(plain, dict):
        return isinstance(plain, list)
    shared = ("images", "annotations")  # COCO's words, too, where they hold entries
    ours = {key for key in (*Config.model_fields, *DataConfig.model_fields) if key in plain}
    return bool(plain) and not {key for key in ours if key not in shared or not _has_entries(plain[key])}


def _has_entries(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def is_yolo(plain: Mapping[str, Any]) -> bool:
    """Tell the YAML of a YOLO data set from our own `data` section: it names classes and parts, and not how to read them."""
    parts = {"train", "val", "test"}
    own = set(DataConfig.model_fields) - parts
    return "names" in plain and not parts.isdisjoint(plain) and own.isdisjoint(plain)


def yolo_home(file: Path, plain: Mapping[str, Any]) -> Path | None:
    """Give the folder that a YOLO data set's paths start from: its `path`, else the YAML's own; None where `path` leads nowhere.

    Often it names a folder of another machine.
    """
    path = plain.get("path")
    try:
        home = file.parent / path if isinstance(path, str) else file.parent
        if home.is_dir():
            return file.parent if home.samefile(file.parent) else home
    except (OSError, ValueError):  # too long, or with a null byte: no name of a folder
        pass
    return None


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
