"""One run, from a data set to a folder with the best model: begin or go on, plan, fit, score.

Comes in: what the user asked for. Goes out: the run folder.

    config.yaml    resolved; every derived value says why     data.json      fingerprint, split, hashes, what was skipped
    request.json   what was asked for                         checkpoints/   state to go on from
    log.jsonl      what happened                              model/         the best averaged weights, and their README
    scores.json    the best model on the validation part; its presence says that the run is finished

Knows nothing of the command line or of how anything is shown.
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
from pixelwise.config import Config, Reasons
from pixelwise.datasets.dataset import Dataset, DataSplits, open_data, pin_paths, without_unreadable
from pixelwise.datasets.fingerprint import fingerprint
from pixelwise.errors import DataError, OutputExistsError, UsageError, memory_respected
from pixelwise.evaluation import require_metrics
from pixelwise.losses import Loss
from pixelwise.models.base import SegmentationModel
from pixelwise.models.weights import ModelCard
from pixelwise.storage import RUN_MARKER, claim_folder, write_atomic, write_json
from pixelwise.training import assembly, budget, memory, plan
from pixelwise.training.checkpoint import readable
from pixelwise.training.ending import SCORES, final_seconds, finish
from pixelwise.training.finetune import Frozen
from pixelwise.training.loader import Crops, cache_fits
from pixelwise.training.loop import Work, fit
from pixelwise.training.machine import cores, freed_memory_kept
from pixelwise.training.optim import head_inputs
from pixelwise.training.runlog import Listener
from pixelwise.training.schedule import next_recount, validation_steps
from pixelwise.types import Fingerprint

CONFIG, REQUEST, DATA = "config.yaml", RUN_MARKER, "data.json"
_LENGTH = "train.steps"


@dataclass(frozen=True)
class Request:
    """Hold what the user asked for; the same request on an unfinished run goes on with it."""

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


def train_run(request: Request, out: Path, *, overwrite: bool = False, listener: Listener | None = None) -> Path:
    """Train as asked, in `out`; where an unfinished run of the same request stands there, go on with it.

    Raises:
        OutputExistsError: a finished run, another request's run or other files stand in `out`, and are not to be replaced.
        PixelwiseError: whatever is wrong with the request, the data or the machine (see `errors`).
    """
    began = time.monotonic()
    tell: Listener = listener or (lambda _: None)
    config, base = configs.read_request(Path(request.data), _overrides(request))
    require_metrics(config.evaluate.metrics, "evaluate.metrics")
    asked = _asked(request, config, base)
    with (
        freed_memory_kept(),
        memory_respected(out, "Lower --set train.batch_size (train.accumulate keeps the step), or the crop."),
    ):
        # Even with `overwrite`: who types the command of a stopped run again wants it to go on.
        if _unfinished(asked, out, overwrite):
            prepared = _resume(out, config, tell)
        else:
            splits = _open(config, base, request.data)
            claim_folder(out, overwrite)
            write_json(out / REQUEST, asked)
            prepared = _begin(request, config, splits, base, out, began, tell)
        if request.time_limit is not None:
            prepared = _fit_within(request.time_limit, began, prepared, out, listener)
        else:
            fit(prepared.work, listener)
        return finish(prepared.work.config, _val(prepared.splits), out, tell)


@dataclass(frozen=True)
class _Prepared:
    work: Work
    splits: DataSplits
    card: ModelCard


def _overrides(request: Request) -> tuple[str, ...]:
    """Spell the options as overrides; `--set` comes last and wins.

    Raises:
        UsageError: two lengths.
    """
    spelled = [f"model.name={json.dumps(request.model)}"] if request.model is not None else []
    spelled += [f"model.weights={json.dumps(request.weights)}"] if request.weights is not None else []
    spelled += [f"train.freeze={request.freeze}"] if request.freeze is not None else []
    spelled += ["model.accept_license=true"] if request.accept_license else []
    lengths = ("time_limit", "steps", "epochs")
    given = [f"--{name.replace('_', '-')}" for name in lengths if getattr(request, name) is not None]
    given += [f"--set {text}" for text in request.overrides if text.partition("=")[0].strip() == _LENGTH]
    if len(given) > 1:
        raise UsageError("train", expected="one length", found=" and ".join(given), do="Leave the others out.")
    if given:
        spelled += [f"{_LENGTH}=null", "train.recounts=[]"]  # whatever the file says
    spelled += [f"train.{name}={value}" for name in ("steps", "seed") if (value := getattr(request, name)) is not None]
    spelled += ["data.skip_bad=true"] if request.skip_bad else []
    return (*spelled, *request.overrides)


def _asked(request: Request, config: Config, base: Path) -> dict[str, Any]:
    """Give what `request.json` holds: the request, and the configuration that it meant, from whatever folder."""
    meant = configs.replace(config, data=pin_paths(config.data, base).model_dump())
    plain: dict[str, Any] = json.loads(json.dumps(asdict(request) | {"config": meant.model_dump(mode="json")}))
    return plain


def _unfinished(asked: dict[str, Any], out: Path, overwrite: bool) -> bool:
    """Tell whether `out` holds an unfinished run of this request.

    Raises:
        OutputExistsError: it holds a finished run, or another request's, and `overwrite` is false.
    """
    if not ((out / CONFIG).is_file() and (out / REQUEST).is_file()):
        _remove_traces(out)
        return False
    problem = None
    if (out / SCORES).exists():
        problem = OutputExistsError(
            out, expected="no finished run", found="one", do="Choose another --out, or add --overwrite to replace it."
        )
    else:
        before = json.loads((out / REQUEST).read_text(encoding="utf-8"))
        different = _first_difference(_of_training(asked), _of_training(before))
        if different is not None:
            key, wanted, found = different
            problem = OutputExistsError(
                out,
                expected=f"an unfinished run with {key} = {wanted!r}",
                found=f"one with {found!r}",
                do="Repeat its command to go on, choose another --out, or add --overwrite to replace it.",
            )
    if problem is not None and not overwrite:
        raise problem
    return problem is None


def _of_training(asked: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a request how the end is scored: a run that failed there may be ended in another way."""
    config = {key: value for key, value in asked["config"].items() if key != "evaluate"}
    overrides = [text for text in asked["overrides"] if not text.strip().startswith("evaluate.")]
    return asked | {"config": config, "overrides": overrides}


def _remove_traces(out: Path) -> None:
    """Make room where a run was stopped before there was a plan, or in the middle of writing it."""
    held = list(out.iterdir()) if out.is_dir() else []
    half = [path for path in held if path.name.startswith(".") and path.suffix == ".tmp"]
    if held and {path.name for path in held if path not in half} <= {REQUEST, DATA}:
        for path in held:
            path.unlink()


def _first_difference(wanted: Any, found: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Give the first key at which two plain trees differ, with both values."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in wanted:
            different = _first_difference(wanted[name], found.get(name), f"{key}.{name}".strip("."))
            if different is not None:
                return different
        return None
    return None if wanted == found else (key.removeprefix("config."), wanted, found)


def _open(config: Config, base: Path, where: str) -> DataSplits:
    splits = open_data(config.data, base)
    if config.data.skip_bad:
        splits = without_unreadable(splits)
    for name in ("train", "val"):
        if not getattr(splits, name):
            raise DataError(
                where,
                expected=f"a {name} part",
                found="none",
                do="Name one, set data.split.val, or divide all images anew: --set data.split.anew=true.",
            )
    return splits


def _begin(
    request: Request, config: Config, splits: DataSplits, base: Path, out: Path, began: float, tell: Listener
) -> _Prepared:
    """Derive, measure, and write down the plan: after this all is a function of the step."""
    for notice in (*splits.notices, *splits.skipped):
        tell({"event": "notice", "text": notice})
    train, val = splits.train, splits.val
    assert train is not None
    assert val is not None
    assembly.require_counted(val)
    facts = fingerprint(train)
    # The run must find the same data from any folder, and read its masks the same way.
    pinned = pin_paths(config.data, base).model_dump()
    as_read = {"labels": splits.labels.to_dict(), "mask_values": splits.description["mask_values"]}
    config = configs.replace(config, data=pinned | as_read)
    device = config.train.device or ("cuda" if torch.cuda.is_available() else "cpu")
    machine = plan.Machine(device.partition(":")[0], cores(), cache_fits(train, facts.dtype))
    config = assembly.named_model(config)
    source = assembly.pretrained(config)
    begins = None
    if source is not None:
        begins = assembly.begins_with(plan.derive(config, facts, machine)[0], train, facts, source)
    config, reasons = plan.derive(config, facts, machine, begins)
    assembly.require_device(config)
    crops, model, loss, report = assembly.parts(config, train, facts, source)
    Frozen(model, config.train)  # says what cannot be frozen, before there is a plan
    if report is not None:
        tell({"event": "notice", "text": f"weights {config.model.weights}: {report.sentence()}"})
    elif config.train.freeze not in ("none", 0):
        tell(
            {"event": "notice", "text": "train.freeze without model.weights: what stands still never learned anything"}
        )
    if config.train.head_rate is None:
        factor, reasons["train.head_rate"] = plan.head_rate(head_inputs(model), begins)
        config = configs.replace(config, train={"head_rate": factor})
    config, measured = _measured(config, reasons, (model, loss, crops))
    # How many steps there are changes nothing in which flips there are.
    card = assembly.model_card(plan.settle(config, facts, train.groups())[0], splits, facts)
    config, length = _length(request, config, (model, loss, crops, card), (val, facts), began)
    config, settled = plan.settle(config, facts, train.groups())
    reasons |= measured | length | settled
    crops.transform = assembly.transform(config, train)
    found = {"fingerprint": facts.to_dict(), "splits": splits.description, "skipped": splits.skipped}
    write_json(out / DATA, found | {"val_hash": val.hash()})
    # Last, since its presence says that the plan stands.
    write_atomic(out / CONFIG, configs.dump_config(config, reasons))
    tell({"event": "plan", "config": config.model_dump(mode="json"), "reasons": reasons})
    card = assembly.model_card(config, splits, facts)
    return _Prepared(assembly.make_work(config, splits, card, (crops, model, loss), out), splits, card)


def _measured(
    config: Config, reasons: Reasons, splits: tuple[SegmentationModel, Loss, Crops]
) -> tuple[Config, Reasons]:
    """Settle what two crops show: how to compute, and, where nobody chose the batch, how much of it fits the memory."""
    config, found = budget.choose_precision(config, *splits)
    if "train.batch_size" in reasons:
        config, more = memory.fit_memory(config, *splits)
        found |= {key: "; ".join(filter(None, (reasons.get(key), why))) for key, why in more.items()}
    return config, found


def _length(
    request: Request,
    config: Config,
    splits: tuple[SegmentationModel, Loss, Crops, ModelCard],
    known: tuple[Dataset, Fingerprint],
    began: float,
) -> tuple[Config, Reasons]:
    """Settle how many steps and validations there are."""
    (model, loss, crops, card), (val, facts) = splits, known
    batch = (config.train.batch_size or 1) * config.train.accumulate
    limit = request.time_limit
    if limit is not None:
        per_validation = assembly.validation_seconds(config, model, card, val)
        final = final_seconds(config, model, card, val)

        def planned(measured_steps: int) -> tuple[Config, Reasons]:
            seconds = budget.step_seconds(config, model, loss, crops, measured_steps), per_validation
            left = limit - (time.monotonic() - began)
            return budget.plan_steps(config, *seconds, left=left, limit=limit, final=final)

        # How much is augmented depends on the number of steps, and what a step takes on how much is augmented.
        rough, _ = planned(3)
        crops.transform = assembly.transform(plan.settle(rough, facts, crops.dataset.groups())[0], crops.dataset)
        return planned(12)
    reasons: Reasons = {}
    steps = config.train.steps
    if steps is None:
        epochs = request.epochs if request.epochs is not None else 100.0
        steps = max(round(epochs * len(crops) / batch), 1)
        reasons["train.steps"] = f"{epochs:g} epochs of {len(crops)} images, {batch} a step"
    validations = config.train.validations
    if validations is None:
        validations = max(1, min(10, steps // 20))
        reasons["train.validations"] = "every 20 steps at most, and at most 10"
    return configs.replace(config, train={"steps": steps, "validations": validations}), reasons


def _fit_within(limit: float, began: float, prepared: _Prepared, out: Path, listener: Listener | None) -> _Prepared:
    """Train, and count the steps again on the way, since a machine that other work shares does not keep its pace."""
    work, before, marks, recounted = prepared.work, None, [(0, 0.0)], False
    measured = (work.config, work.model, prepared.card, _val(prepared.splits))
    per_validation, final = assembly.validation_seconds(*measured), final_seconds(*measured)
    while (border := next_recount(work.config.train)) is not None:
        state = fit(work, listener, until=border, recounted=recounted)
        if before is None:  # what an earlier process spent on steps, this one did not
            before = max(state.seconds - (time.monotonic() - began), 0.0)
        train, due = work.config.train, validation_steps(work.config.train)
        marks.append((border, state.seconds))
        pace = budget.slower_pace(marks, due, per_validation)
        left = limit - before - (time.monotonic() - began)
        more = budget.fitting_steps(pace, per_validation, max(sum(d > border for d in due), 1), left, final)
        recounts = (*train.recounts, (border, border + max(more, 1)))
        _write_recounts(out / CONFIG, recounts)
        work = replace(work, config=configs.replace(work.config, train={"recounts": recounts}))
        recounted = True
    fit(work, listener, recounted=recounted)
    return replace(prepared, work=work)


def _write_evaluate(path: Path, config: Config) -> None:
    """Replace the last section of config.yaml, so that the reasons in the others stay."""
    mark = "\nevaluate:\n"
    before = path.read_text(encoding="utf-8").partition(mark)[0].rstrip("\n")
    write_atomic(path, before + mark + configs.dump_config(config, {}).partition(mark)[2])


def _write_recounts(path: Path, recounts: tuple[tuple[int, int], ...]) -> None:
    """Replace one line of config.yaml, so that the reasons in the others stay."""
    said = (
        f"  recounts: {json.dumps(recounts)}  # [step, steps in all from there on]: counted again as the time went by"
    )
    text, count = re.subn(r"^  recounts: .*$", said, path.read_text(encoding="utf-8"), count=1, flags=re.M)
    assert count == 1, "every key of the tree stands in config.yaml"
    write_atomic(path, text)


def _val(splits: DataSplits) -> Dataset:
    assert splits.val is not None
    return splits.val


def _resume(out: Path, asked: Config, tell: Listener) -> _Prepared:
    """Take up the plan that stands in `out`; how the end is scored is asked for anew.

    Raises:
        DataError: the data set is no longer the same.
    """
    config = configs.replace(configs.load_config(out / CONFIG), evaluate=asked.evaluate.model_dump())
    _write_evaluate(out / CONFIG, config)
    assembly.require_device(config)
    splits = _open(config, out, str(out))
    known = json.loads((out / DATA).read_text(encoding="utf-8"))
    facts = Fingerprint.from_dict(known["fingerprint"])
    assert splits.train is not None
    for split, digest, before in (
        ("training", splits.train.hash(), facts.hash),
        ("validation", _val(splits).hash(), known["val_hash"]),
    ):
        if digest != before:
            raise DataError(
                config.data.root or out,
                expected=f"the {split} part as it was when the run began",
                found="other files",
                do="Restore them, or train anew with another --out.",
            )
    tell({"event": "plan", "config": config.model_dump(mode="json"), "reasons": {}})
    # A checkpoint holds all weights; without one that can be read there are none but those that training begins with.
    source = None if readable(out / "checkpoints") else assembly.pretrained(config)
    crops, model, loss, _ = assembly.parts(config, splits.train, facts, source)
    card = assembly.model_card(config, splits, facts)
    return _Prepared(assembly.make_work(config, splits, card, (crops, model, loss), out), splits, card)
