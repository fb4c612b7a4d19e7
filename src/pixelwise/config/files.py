"""Read configurations from YAML files and DATA arguments, apply overrides, and write them with the reason of each value."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pixelwise.config.tree import Config, DataConfig
from pixelwise.errors import ConfigError, DataError, nearest

Reasons = dict[str, str]
_Tree = TypeVar("_Tree", bound=BaseModel)
_AnyConfig = TypeVar("_AnyConfig", bound=Config)

_MAX_VALUES = 1_000_000
_UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
_EXPECTED = {"missing": "a value", "model_type": "keys and values", "list_type": "a list", "tuple_type": "a list"}


def config_from_dict(plain: Mapping[str, Any], where: object = "config") -> Config:
    """Return the configuration described by a plain mapping.

    Raises:
        ConfigError: an unknown key (the message names the nearest valid one) or an invalid value.
    """
    return _validated(Config, plain, where)


def load_config(path: Path) -> Config:
    """Read a configuration from a YAML file.

    Raises:
        ConfigError: a missing file, invalid YAML, an unknown key (with line and nearest valid key) or an invalid value.
    """
    plain, lines = read_yaml(path)
    return _validated(Config, plain, path, lines)


def read_rules(given: Any, base: Path = Path()) -> Any:
    """Return the rules of `measure.rules`: as they are, or from the YAML file that is named, in `base` or the current folder.

    Raises:
        ConfigError: a file that cannot be read.
    """
    if not isinstance(given, str):
        return given
    return read_yaml(base / given if (base / given).is_file() else Path(given))[0]


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a YAML mapping, and the line number of each dotted key.

    Raises:
        ConfigError: a missing file, invalid YAML, a duplicate key, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _expanded_size(node, {}) > _MAX_VALUES:
            raise ConfigError(
                path,
                expected=f"at most {_MAX_VALUES:,} values",
                found="aliases that expand to more",
                do="Write the values without aliases.",
            )
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
                f"{path}:{line}",
                expected="unique keys",
                found=f"`{key}` also on line {lines[key]}",
                do="Remove one of them.",
            )
        lines[key] = line
    return plain, lines


def _expanded_size(node: Any, sizes: dict[int, int]) -> int:
    """Count the values of a YAML node with aliases expanded: a few lines can expand to billions."""
    if id(node) not in sizes:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


def _key_lines(node: Any, prefix: str = "") -> Iterable[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _key_lines(value, f"{name}.")


def with_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """Apply `a.b=c` overrides to a configuration; `c` is parsed as YAML.

    Raises:
        ConfigError: a missing `=`, an unknown key, or an invalid value.
    """
    plain = config.model_dump()
    for text in overrides:
        key, sign, value = text.partition("=")
        where = f"--set {text}"
        if not sign:
            raise ConfigError(where, expected="key=value", found=text, do="Write --set train.steps=100.")
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(where, expected="a YAML value", found=value, do="Quote the value.") from error
        *path, name = key.strip().split(".")
        section: Any = plain
        for step in path:
            if section.get(step) is None:
                section[step] = {}
            section = section[step]
            if not isinstance(section, dict):
                raise ConfigError(
                    where, expected=f"a section {step!r}", found=f"the value {section!r}", do="Name an existing key."
                )
        section[name] = parsed
    return _validated(Config, plain, "--set")


def read_request(data: Path, overrides: Iterable[str] = ()) -> tuple[Config, Path]:
    """Read the configuration that a DATA argument names.

    Args:
        data: a folder, a `data.yaml`, a recipe (YAML with a `data:` key), the YAML file of a YOLO data set, or an
            annotation file.
        overrides: `a.b=c` texts; a relative `data.root` among them is relative to the current folder.

    Returns:
        The configuration, and the folder that its paths are relative to.

    Raises:
        DataError: the path does not exist, or is of another type.
        ConfigError: an unknown key or an invalid value.
    """
    overrides = tuple(overrides)
    if _is_annotation(data):
        # COCO stores annotations in a separate folder, beside the folder of the images.
        root = data.absolute().parent.parent if data.absolute().parent.name == "annotations" else data.parent
        pattern = glob.escape(data.absolute().relative_to(root.absolute()).as_posix())
        return _overridden(Config(data=DataConfig(annotations=pattern)), overrides), root
    if not data.is_dir() and not (data.is_file() and data.suffix.lower() in {".yaml", ".yml", ".json"}):
        found = f"a file of type {data.suffix or 'unknown'}" if data.is_file() else "nothing"
        expected = "a folder, a data.yaml, a recipe or an annotation file (.json, .xml)"
        raise DataError(data, expected=expected, found=found, do="Check the path.")
    if data.is_dir():
        described = next((data / name for name in ("data.yaml", "data.yml") if (data / name).is_file()), None)
        if described is None:
            return _overridden(Config(), overrides), data
        data = described
    return _overridden(_read_description(data), overrides), data.parent


def _read_description(data: Path) -> Config:
    """Read a `data.yaml`, a recipe, or the YAML file of a YOLO data set."""
    plain, lines = read_yaml(data)
    if "data" in plain:
        return _validated(Config, plain, data, lines)
    if is_yolo(plain):
        home = yolo_home(data, plain) or data.parent
        root = None if home == data.parent else str(home.absolute())
        return Config(data=DataConfig(format="yolo", root=root, annotations=str(data.absolute())))
    return Config(data=_validated(DataConfig, plain, data, lines))


def _is_annotation(data: Path) -> bool:
    """Whether a file is an annotation file: XML, or JSON that is not a configuration."""
    if not data.is_file() or data.suffix.lower() not in {".xml", ".json"}:
        return False
    if data.suffix.lower() == ".xml":
        return True
    try:
        plain = json.loads(data.read_bytes())
    except UnicodeDecodeError:
        return True  # annotations may be in another encoding; configurations are in UTF-8
    except (OSError, ValueError, RecursionError):
        return False  # the error is reported when the file is read as YAML
    if not isinstance(plain, dict):
        return isinstance(plain, list)
    config_keys = plain.keys() & {*Config.model_fields, *DataConfig.model_fields}
    # COCO uses these two keys as well, with lists of objects.
    coco_keys = {key for key in ("images", "annotations") if _is_list_of_objects(plain.get(key))}
    return bool(plain) and config_keys <= coco_keys


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def is_yolo(plain: Mapping[str, Any]) -> bool:
    """Whether a mapping is the YAML file of a YOLO data set: `names`, splits and no other key of `DataConfig`."""
    splits = {"train", "val", "test"}
    config_keys = set(DataConfig.model_fields) - splits
    return "names" in plain and not splits.isdisjoint(plain) and config_keys.isdisjoint(plain)


def yolo_home(file: Path, plain: Mapping[str, Any]) -> Path | None:
    """Return the folder that the paths of a YOLO data set are relative to: its `path`, or the folder of the YAML file.

    None if `path` does not exist, as for a data set copied from another machine.
    """
    path = plain.get("path")
    try:
        home = file.parent / path if isinstance(path, str) else file.parent
        if home.is_dir():
            return file.parent if home.samefile(file.parent) else home
    except (OSError, ValueError):  # the path is too long or contains a null byte
        pass
    return None


def _overridden(config: Config, overrides: tuple[str, ...]) -> Config:
    changed = with_overrides(config, overrides)
    if any(text.partition("=")[0].strip() == "data.root" for text in overrides) and changed.data.root:
        return replace(changed, data={"root": str(Path(changed.data.root).resolve())})
    return changed


def replace(config: _AnyConfig, **sections: Mapping[str, Any]) -> _AnyConfig:
    """Return a copy with some values changed: `replace(config, train={"steps": 100})`."""
    plain = config.model_dump()
    for name, values in sections.items():
        plain[name] = {**plain.get(name, {}), **values}
    return _validated(type(config), plain, "config")


def dump_config(config: Config, reasons: Mapping[str, str]) -> str:
    """Write a configuration as YAML, with the reason of each derived value as a comment."""
    lines = ["# Configuration of this run. Values with a comment were derived; all others were set or are defaults."]
    for section, values in config.model_dump().items():
        lines.append(f"{section}:")
        for key, value in values.items():
            reason = " ".join(reasons.get(f"{section}.{key}", "").split())
            text = str(yaml.dump(value, Dumper=_Dumper, **_FLOW)).removesuffix("\n").removesuffix("\n...")
            lines.append(f"  {key}: {text}" + (f"  # {reason}" if reason else ""))
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Write tuples as lists. Pydantic's JSON form would also turn numeric keys into text."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Double-quote text with unusual line ends, which escapes them; PyYAML would read them back as spaces."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if set(text) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)
_Dumper.add_representer(str, _represent_text)
_FLOW: Any = {"default_flow_style": True, "allow_unicode": True, "width": 1e6, "sort_keys": False}


def _validated(
    tree: type[_Tree], plain: Mapping[str, Any], where: object, lines: Mapping[str, int] | None = None
) -> _Tree:
    try:
        return tree.model_validate(dict(plain))
    except ValidationError as error:
        raise _config_error(error, where, lines or {}, tree) from error


def _config_error(
    error: ValidationError, where: object, lines: Mapping[str, int], tree: type[BaseModel]
) -> ConfigError:
    problems = error.errors()
    problem = next((p for p in problems if p["type"] in _UNKNOWN_KEY), problems[0])
    unknown = problem["type"] in _UNKNOWN_KEY
    # The last part of the location of an unknown key was written by the user, even if it looks like a branch of a union.
    given = problem["loc"][-1:] if unknown else ()
    path = problem["loc"][: len(problem["loc"]) - len(given)]
    names = [str(part) for part in path if not _is_union_branch(part)] + [str(part) for part in given]
    key = ".".join(names)
    prefixes = [".".join(names[:depth]) for depth in range(len(names), 0, -1)]
    line = next((lines[name] for name in prefixes if name in lines), None)
    place = f"{where}:{line}" if line else str(where)
    if unknown:
        valid = _keys_at(tree, names[:-1])
        expected = f"one of {', '.join(valid)}"
        return ConfigError(
            place, expected=expected, found=f"unknown key `{key}`", do=nearest(names[-1], valid, "Remove it.")
        )
    missing = problem["type"] == "missing"
    message = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return ConfigError(
        f"{place}: {key}" if key else place,
        expected=_EXPECTED.get(problem["type"], message),
        found="none" if missing else repr(problem.get("input")),
        do="Add it." if missing else "Correct the value.",
    )


def _is_union_branch(part: int | str) -> bool:
    """Whether part of an error location is pydantic's name of the branch of a union."""
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
