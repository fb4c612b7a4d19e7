"""A training run, from a data set to a folder with the best model.

config.yaml    resolved configuration with reasons       data.json      fingerprint, splits, hashes, skipped files
request.json   the user's request                        checkpoints/   states to resume from
log.jsonl      events                                    model/         the best averaged weights, with a README
scores.json    scores of the best model on the validation split; exists if the run is finished
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import pixelwise.config as configs
from pixelwise.config import Config, Reasons, ResolvedConfig
from pixelwise.datasets.dataset import Dataset, DataSplits, open_data, pin_paths, without_unreadable
from pixelwise.datasets.fingerprint import fingerprint
from pixelwise.datasets.scenes import resolved_blocks
from pixelwise.datasets.set_aside import set_aside
from pixelwise.datasets.used_images import used_images
from pixelwise.errors import ConfigError, DataError, OutputExistsError, UsageError, convert_memory_errors
from pixelwise.evaluation import require_metrics
from pixelwise.evaluation.kept import KeptMasks
from pixelwise.inference.torch_backend import limit_threads
from pixelwise.machine import cores
from pixelwise.measuring.rules import Rules
from pixelwise.models import packaged
from pixelwise.storage import RUN_MARKER, claim_folder, write_atomic, write_json
from pixelwise.training import assembly, length, plan
from pixelwise.training.assembly import Components
from pixelwise.training.checkpoint import readable
from pixelwise.training.ending import SCORES, finish
from pixelwise.training.finetune import Frozen
from pixelwise.training.length import CONFIG
from pixelwise.training.loader import cache_fits
from pixelwise.training.loop import Work, fit
from pixelwise.training.machine import keep_freed_memory
from pixelwise.training.network_plan import Machine, choose_network
from pixelwise.training.optim import head_inputs
from pixelwise.training.runlog import Listener
from pixelwise.training.size_calibration import KEY, plan_size_calibration
from pixelwise.types import Fingerprint

REQUEST, DATA = RUN_MARKER, "data.json"
_STEPS = "train.steps"
# Keys of the data section that say where the files are. Data may be moved during a run: what they contain must not change.
_PLACES = ("root", "images", "masks", "valid", "train", "val", "test", "annotations", "group")

_Difference = tuple[str, Any, Any]


@dataclass(frozen=True)
class Request:
    """The arguments of the user. The same request on an unfinished run resumes it."""

    data: str
    model: str | None = None
    time_limit: float | None = None
    steps: int | None = None
    epochs: float | None = None
    seed: int | None = None
    overrides: tuple[str, ...] = ()
    skip_bad: bool = False
    weights: str | None = None
    freeze: str | None = None
    accept_license: bool = False


def train_run(
    request: Request,
    out: Path,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
    started: float | None = None,
    masks: KeptMasks | None = None,
) -> Path:
    """Train in the folder `out`, or resume the unfinished run of the same request there. Return the folder.

    Args:
        request: the arguments of the user.
        out: the run folder.
        overwrite: replace a finished run, or one of another request.
        listener: called with each event.
        started: when the time limit began, in seconds of `time.monotonic`; now by default.
        masks: keeps the predicted masks of the validation images.

    Raises:
        OutputExistsError: `out` contains a finished run, the run of another request or other files, and `overwrite` is
            false.
        PixelwiseError: a problem of the request, the data or the machine (see `errors`).
    """
    started = time.monotonic() if started is None else started
    notify: Listener = listener or (lambda _: None)
    limit_threads()
    config, base = configs.read_request(Path(request.data), _overrides(request))
    require_metrics(config.evaluate.metrics, "evaluate.metrics")
    rules = {"rules": configs.read_rules(config.measure.rules, base)}
    pinned = configs.replace(config, data=pin_paths(config.data, base).model_dump(), measure=rules)
    record = _request_record(request, pinned)
    with (
        keep_freed_memory(),
        convert_memory_errors(out, "Lower --set train.batch_size (train.accumulate keeps the step), or the crop."),
    ):
        # An unfinished run is resumed even with `overwrite`: to resume means to repeat the command.
        run = _resume(out, pinned, record, overwrite, notify) if _is_unfinished(record, out, overwrite) else None
        if run is None:
            data = _open_data(config, base, request.data)
            claim_folder(out, overwrite)
            write_json(out / REQUEST, record)
            run = _begin(request, pinned, data, out, started, notify)
        deadline, bank = None, run.work.bank
        try:
            if request.time_limit is None:
                fit(run.work, listener)
            else:
                work, deadline = length.fit_within(request.time_limit, started, run.work, run.begun, listener)
                run = replace(run, work=work)
        finally:
            if bank is not None:
                bank.clear()
        return finish(run.work.config, run.data.val, out, notify, deadline, masks, run.data.sizes)


@dataclass(frozen=True)
class _Data:
    """The opened data set; `train` and `val` are splits of it.

    Args:
        splits: the data set.
        train: the training split.
        val: the validation split, without the images that were set aside.
        sizes: images of the validation split that were set aside to calibrate intervals of sizes; None if there are none.
    """

    splits: DataSplits
    train: Dataset
    val: Dataset
    sizes: Dataset | None = None

    def with_set_aside(self, count: int | None) -> _Data:
        """Set a number of validation images, or groups of images, aside."""
        divided = set_aside(self.val, count)
        return replace(self, val=divided.val, sizes=divided.sizes)

    def used(self) -> dict[str, Any]:
        """Return the images by their use, for `data.json`."""
        uses = {"train": self.train, "val": self.val, "sizes": self.sizes}
        return {use: used_images(images.records) for use, images in uses.items() if images is not None}


@dataclass(frozen=True)
class _Run:
    """A run that is ready for the training loop."""

    work: Work
    data: _Data
    begun: length.Begun


def _overrides(request: Request) -> tuple[str, ...]:
    """Return the options as overrides, followed by the overrides of the user, which take precedence.

    Raises:
        UsageError: more than one of steps, epochs and time limit.
    """
    lengths = ("time_limit", "steps", "epochs")
    given = [f"--{name.replace('_', '-')}" for name in lengths if getattr(request, name) is not None]
    given += [f"--set {text}" for text in request.overrides if text.partition("=")[0].strip() == _STEPS]
    if len(given) > 1:
        raise UsageError(
            "train",
            expected="one of --time-limit, --steps and --epochs",
            found=" and ".join(given),
            do="Choose one of them.",
        )
    options = {
        "model.name": None if request.model is None else json.dumps(request.model),
        "model.weights": None if request.weights is None else json.dumps(request.weights),
        "train.freeze": request.freeze,
        "model.accept_license": "true" if request.accept_license else None,
        _STEPS: ("null" if request.steps is None else request.steps) if given else None,
        "train.recounts": "[]" if given else None,
        "train.seed": request.seed,
        "data.skip_bad": "true" if request.skip_bad else None,
    }
    return (*(f"{key}={value}" for key, value in options.items() if value is not None), *request.overrides)


def _request_record(request: Request, pinned: Config) -> dict[str, Any]:
    """Return the content of `request.json`: the request, and its configuration with absolute paths."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(request) | {"config": pinned.model_dump(mode="json")}))
    labels = plain["config"]["data"]["labels"]
    if isinstance(labels, str) and Path(labels).is_file():
        plain["config"]["data"]["labels"] = json.loads(json.dumps(configs.read_yaml(Path(labels))[0]))
    return plain


def _is_unfinished(record: dict[str, Any], out: Path, overwrite: bool) -> bool:
    """Whether `out` contains an unfinished run of this request.

    Raises:
        OutputExistsError: it contains a finished run or one of another request, and `overwrite` is false.
    """
    if not ((out / CONFIG).is_file() and (out / REQUEST).is_file()):
        _remove_unplanned(out)
        return False
    problem = None
    if (out / SCORES).exists():
        problem = OutputExistsError(
            out, expected="no finished run", found="one", do="Choose another --out, or add --overwrite to replace it."
        )
    else:
        before = json.loads((out / REQUEST).read_text(encoding="utf-8"))
        difference = _first_difference(_comparable(record), _comparable(before))
        problem = None if difference is None else _another_request(out, difference)
    if problem is not None and not overwrite:
        raise problem
    return problem is None


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Return what must be equal for a run to be resumed.

    The place of the data is left out, since hashes of their contents are compared instead, and so are the settings of the
    final scoring: a run that failed there may be finished with others. Overrides are part of the configuration.
    """
    config = {key: value for key, value in record["config"].items() if key != "evaluate"}
    config["data"] = {key: value for key, value in config["data"].items() if key not in _PLACES}
    return {key: value for key, value in record.items() if key not in ("data", "overrides")} | {"config": config}


def _another_request(out: Path, difference: _Difference) -> OutputExistsError:
    key, requested, found = difference
    return OutputExistsError(
        out,
        expected=f"an unfinished run with {key} = {requested!r}",
        found=f"one with {found!r}",
        do="Repeat its command to resume it, choose another --out, or add --overwrite to replace it.",
    )


def _remove_unplanned(out: Path) -> None:
    """Remove the files of a run that was stopped before its plan was written."""
    files = list(out.iterdir()) if out.is_dir() else []
    complete = {path.name for path in files if not (path.name.startswith(".") and path.suffix == ".tmp")}
    if complete <= {REQUEST, DATA}:
        for path in files:
            path.unlink()


def _first_difference(requested: Any, found: Any, key: str = "") -> _Difference | None:
    """Return the first key at which two plain trees differ, with both values."""
    if isinstance(requested, dict) and isinstance(found, dict):
        for name in requested:
            difference = _first_difference(requested[name], found.get(name), f"{key}.{name}".strip("."))
            if difference is not None:
                return difference
        return None
    return None if requested == found else (key.removeprefix("config."), requested, found)


def _open_data(config: Config, base: Path, where: str) -> _Data:
    whole = _is_whole(config)
    section = config.data
    if whole is not None:
        section = section.model_copy(update={"volumes": "whole" if whole else "slices"})
    splits = open_data(section, base)
    if config.data.skip_bad:
        splits = without_unreadable(splits)
    for name in ("train", "val"):
        if not getattr(splits, name):
            raise DataError(
                where,
                expected=f"a {name} split",
                found="none",
                do="Define one, set data.split.val, or split all images anew: --set data.split.anew=true.",
            )
    assert splits.train is not None
    assert splits.val is not None
    if whole and not splits.train.records[0].stack:
        raise ConfigError(
            "model.dimensions",
            expected="volumes (NIfTI or DICOM) for a network with three dimensions",
            found=f"images ({splits.description['format']})",
            do="Leave out model.dimensions and data.volumes.",
        )
    return _Data(splits, splits.train, splits.val)


def _is_whole(config: Config) -> bool | None:
    """Whether volumes are to be read whole, by the dimensions of the network; None if these are not given.

    Raises:
        ConfigError: `data.volumes` and `model.dimensions` contradict each other.
    """
    dimensions, volumes = config.model.dimensions, config.data.volumes
    if dimensions is None:
        return volumes == "whole" if volumes else None
    if volumes is not None and (volumes == "whole") != (dimensions == 3):
        do = "Set one of them only."
        raise ConfigError(
            "model.dimensions", expected=f"one that fits data.volumes={volumes}", found=str(dimensions), do=do
        )
    return dimensions == 3


def _begin(request: Request, config: Config, data: _Data, out: Path, started: float, notify: Listener) -> _Run:
    """Plan a run and write the plan; from then on, training is a function of the configuration and the step."""
    for notice in (*data.splits.notices, *data.splits.skipped):
        notify({"event": "notice", "text": notice})
    config, why_set_aside, few = plan_size_calibration(config, data.val)
    if few is not None:
        notify({"event": "notice", "text": few})
    val_hash = data.val.hash()
    data = data.with_set_aside(config.train.size_calibration)
    assembly.require_annotated_pixels(data.val)
    if config.measure.rules is not None:
        Rules.from_dict(config.measure.rules, data.splits.labels.names)
    facts = fingerprint(data.train)
    # The masks and images must be read in the same way from now on.
    detected = {
        "labels": data.splits.labels.to_dict(),
        "mask_values": data.splits.description["mask_values"],
        "bands": data.train.bands,
    }
    converted = config.data.bands is None and data.train.bands is not None
    if data.train.records[0].plane is not None:
        detected["volumes"] = "whole" if data.train.records[0].stack else "slices"
    blocks, why_blocks = resolved_blocks(config.data.split, data.splits.description["split"])
    detected |= {"split": blocks.model_dump()}
    config = configs.replace(config, data=detected, model={"dimensions": 3 if data.train.records[0].stack else 2})
    device = config.train.device or ("cuda" if torch.cuda.is_available() else "cpu")
    machine = Machine(device.partition(":")[0], cores(), cache_fits(data.train, facts.dtype))
    architecture = assembly.architecture_of_weights(config) or {}
    available = packaged.available(config.model.encoder or packaged.DEFAULT)
    config, chosen = choose_network(config, facts, machine, available, architecture.get("name"))
    config = assembly.with_network(config)
    config, reasons, components = _derive(config, data, facts, machine, notify)
    reasons |= chosen
    config, measured = length.measure(config, reasons, components)
    # For the test-time flips in the card, which do not depend on the number of steps.
    card = assembly.model_card(plan.settle(config, facts, data.train.groups())[0], data.splits, facts)
    begun = length.Begun(components, card, data.val, facts, out, data.sizes)
    if request.time_limit is None:
        config, chosen = length.planned(request.epochs, config, begun)
    else:
        config, chosen = length.within(request.time_limit, started, config, begun)
    reasons |= chosen
    config, settled = plan.settle(config, facts, data.train.groups())
    resolved = configs.resolve(config)
    reasons |= measured | settled
    reasons |= {"data.bands": "grey and colour images are mixed"} if converted else {}
    reasons |= {"data.split": why_blocks} if why_blocks else {}
    reasons |= {KEY: why_set_aside} if why_set_aside else {}
    components.crops.transform = assembly.transform(resolved, data.train)
    found = {"fingerprint": facts.to_dict(), "splits": data.splits.description, "skipped": data.splits.skipped}
    write_json(out / DATA, found | {"val_hash": val_hash, "used": data.used()})
    # Written last, since its presence means that the plan is complete.
    write_atomic(out / CONFIG, configs.dump_config(resolved, reasons))
    return _planned_run(resolved, reasons, data, facts, components, out, notify)


def _planned_run(
    config: ResolvedConfig,
    reasons: Reasons,
    data: _Data,
    facts: Fingerprint,
    components: Components,
    out: Path,
    notify: Listener,
) -> _Run:
    notify({"event": "plan", "config": config.model_dump(mode="json"), "reasons": reasons})
    card = assembly.model_card(config, data.splits, facts)
    work = assembly.make_work(config, data.val, card, components, out)
    return _Run(work, data, length.Begun(components, card, data.val, facts, out, data.sizes))


def _derive(
    config: Config, data: _Data, facts: Fingerprint, machine: Machine, notify: Listener
) -> tuple[Config, Reasons, Components]:
    """Derive what needs no measurement, and build the components."""
    source = assembly.pretrained(config)
    initial = None
    if source is not None:
        unweighted = plan.derive(config, facts, machine)[0]
        initial = assembly.initial_weights(unweighted, data.train, facts, source)
    config, reasons = plan.derive(config, facts, machine, initial)
    draft = configs.draft(config)
    assembly.require_device(draft.train.device)
    components = assembly.build(draft, data.train, facts, source)
    Frozen(components.model, draft.train)  # raises for an invalid `train.freeze` before the plan is written
    if components.report is not None:
        notify({"event": "notice", "text": f"weights {config.model.weights}: {components.report.sentence()}"})
    elif config.train.freeze not in (None, "none", 0):
        notify({"event": "notice", "text": "train.freeze without model.weights: the frozen layers have random weights"})
    if config.train.head_rate is None:
        factor, reasons["train.head_rate"] = plan.head_rate(head_inputs(components.model), initial)
        config = configs.replace(config, train={"head_rate": factor})
    return config, reasons, components


def _write_evaluate(path: Path, config: Config) -> None:
    """Replace the last section of config.yaml, keeping the reasons in the others."""
    heading = "\nevaluate:\n"
    before = path.read_text(encoding="utf-8").partition(heading)[0].rstrip("\n")
    write_atomic(path, before + heading + configs.dump_config(config, {}).partition(heading)[2])


def _write_places(path: Path, config: Config) -> None:
    """Replace the lines of config.yaml that say where the data are."""
    text = path.read_text(encoding="utf-8")
    written = configs.dump_config(config, {})
    for key in _PLACES:  # data is the first section
        line = re.compile(rf"^  {key}: .*$", re.M)
        old, new = line.search(text), line.search(written)
        assert old is not None, "config.yaml has all keys"
        assert new is not None, "config.yaml has all keys"
        text = text[: old.start()] + new[0] + text[old.end() :]
    write_atomic(path, text)


def _resume(out: Path, requested: Config, record: dict[str, Any], overwrite: bool, notify: Listener) -> _Run | None:
    """Continue with the plan in `out`; the place of the data and the settings of the final scoring are those of the request.

    Returns:
        The run; None if the request names other data, and `overwrite` allows to replace the run.

    Raises:
        DataError: the data set has changed.
        OutputExistsError: the request names other data, and `overwrite` is false.
    """
    before = json.loads((out / REQUEST).read_text(encoding="utf-8"))
    places = requested.data.model_dump(include=set(_PLACES))
    here, there = ({key: each["config"]["data"].get(key) for key in _PLACES} for each in (record, before))
    moved = _first_difference(here, there, "data")
    evaluate = requested.evaluate.model_dump()
    config = configs.replace(configs.load_config(out / CONFIG), data=places, evaluate=evaluate)
    data = _open_data(config, out, str(out))
    known = json.loads((out / DATA).read_text(encoding="utf-8"))
    facts = Fingerprint.from_dict(known["fingerprint"])
    for split, digest, expected in (
        ("training", data.train.hash(), facts.hash),
        ("validation", data.val.hash(), known["val_hash"]),
    ):
        if digest == expected:
            continue
        if moved is None:
            raise DataError(
                config.data.root or out,
                expected=f"the {split} split as it was when the run began",
                found="other files",
                do="Restore the files, or start a new run with another --out.",
            )
        if not overwrite:
            raise _another_request(out, moved)
        return None
    data = data.with_set_aside(config.train.size_calibration)
    _write_evaluate(out / CONFIG, config)
    if moved is not None:
        _write_places(out / CONFIG, config)
        write_json(out / REQUEST, record)
    resolved = configs.resolve(config, out / CONFIG)
    assembly.require_device(resolved.train.device)
    # A checkpoint contains all weights; initial weights are needed only without a readable one.
    source = None if readable(out / "checkpoints") else assembly.pretrained(config)
    components = assembly.build(resolved, data.train, facts, source)
    return _planned_run(resolved, {}, data, facts, components, out, notify)
