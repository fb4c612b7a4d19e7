"""One run, from a data set to a folder with the best model: begin or go on, plan, fit, score.

Comes in: what the user asked for. Goes out: the run folder.

    config.yaml    resolved; every derived value says why     data.json      fingerprint, split, hashes, what was skipped
    request.json   what was asked for                         checkpoints/   state to go on from
    log.jsonl      what happened                              model/         the best averaged weights
    scores.json    the best model on the validation part; its presence says that the run is finished

Knows nothing of the command line or of how anything is shown.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import pixelwise.config as configs
from pixelwise.config import Config, Reasons
from pixelwise.data.dataset import Dataset, DataSplits, open_data, pin_paths, without_unreadable
from pixelwise.data.fingerprint import fingerprint
from pixelwise.data.loader import Crops, cache_fits
from pixelwise.data.transforms import CropTransform
from pixelwise.errors import ConfigError, DataError, OutputExistsError
from pixelwise.evaluation import evaluate, quick_miou
from pixelwise.inference.predictor import Predictor
from pixelwise.losses import CombinedLoss, class_weights, combined_loss
from pixelwise.models.base import SegmentationModel
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import ModelCard, load_model, save_model
from pixelwise.storage import claim_folder, write_atomic, write_json
from pixelwise.training import budget, plan
from pixelwise.training.loop import Work, fit
from pixelwise.training.machine import cores, freed_memory_kept
from pixelwise.training.optim import begin_at_prior, head_inputs
from pixelwise.training.runlog import Listener
from pixelwise.training.schedule import next_recount, validation_steps
from pixelwise.types import Fingerprint

MODEL, SCORES, CONFIG, REQUEST, DATA = "model", "scores.json", "config.yaml", "request.json", "data.json"


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


def train_run(request: Request, out: Path, *, overwrite: bool = False, listener: Listener | None = None) -> Path:
    """Train as asked, in `out`; where an unfinished run of the same request stands there, go on with it.

    Raises:
        OutputExistsError: a finished run, another request's run or other files stand in `out`.
        PixelwiseError: whatever is wrong with the request, the data or the machine (see `errors`).
    """
    began = time.monotonic()
    tell: Listener = listener or (lambda _: None)
    with freed_memory_kept():
        if overwrite or not _unfinished(request, out):
            config, base = configs.read_request(Path(request.data), _overrides(request))
            splits = _open(config, base, request.data)
            claim_folder(out, overwrite)
            prepared = _begin(request, config, splits, base, out, began, tell)
        else:
            prepared = _resume(out, tell)
        if _timed(request):
            prepared = _fit_within(request.time_limit or 0.0, began, prepared, out, listener)
        else:
            fit(prepared.work, listener)
        return _finish(prepared, out, tell)


@dataclass(frozen=True)
class _Prepared:
    work: Work
    splits: DataSplits
    card: ModelCard


def _overrides(request: Request) -> tuple[str, ...]:
    """Spell the options as overrides; `--set` comes last and wins."""
    spelled = [f"model.name={request.model}"] if request.model is not None else []
    if any(value is not None for value in (request.time_limit, request.steps, request.epochs)):
        spelled += ["train.steps=null", "train.recounts=[]"]  # whatever the file says
    spelled += [f"train.{name}={value}" for name in ("steps", "seed") if (value := getattr(request, name)) is not None]
    spelled += ["data.skip_bad=true"] if request.skip_bad else []
    return (*spelled, *request.overrides)


def _timed(request: Request) -> bool:
    """Tell whether the time limit decides how many steps there are."""
    return request.time_limit is not None and not any(text.startswith("train.steps=") for text in request.overrides)


def _unfinished(request: Request, out: Path) -> bool:
    """Tell whether `out` holds an unfinished run of this request.

    Raises:
        OutputExistsError: it holds a finished run, or another request's.
    """
    if not (out / CONFIG).exists():
        only_traces = out.is_dir() and {p.name for p in out.iterdir()} <= {REQUEST, DATA}
        if only_traces:  # stopped before there was a plan: begin again
            for trace in out.iterdir():
                trace.unlink()
        return False
    if (out / SCORES).exists():
        raise OutputExistsError(
            out, expected="no finished run", found="one", do="Choose another --out, or add --overwrite to replace it."
        )
    asked = json.loads((out / REQUEST).read_text())
    wanted = json.loads(json.dumps(asdict(request)))
    different = [k for k in wanted if wanted[k] != asked.get(k)]
    if different:
        key = different[0]
        raise OutputExistsError(
            out,
            expected=f"an unfinished run with {key} = {wanted[key]!r}",
            found=f"one with {asked.get(key)!r}",
            do="Repeat its command to go on, choose another --out, or add --overwrite to replace it.",
        )
    return True


def _open(config: Config, base: Path, where: str) -> DataSplits:
    splits = open_data(config.data, base)
    if config.data.skip_bad:
        splits = without_unreadable(splits)
    for name in ("train", "val"):
        if not getattr(splits, name):
            raise DataError(where, expected=f"a {name} part", found="none", do="Name one, or set data.split.val.")
    return splits


def _begin(
    request: Request, config: Config, splits: DataSplits, base: Path, out: Path, began: float, tell: Listener
) -> _Prepared:
    """Derive, measure, and write down the plan: after this all is a function of the step."""
    write_json(out / REQUEST, asdict(request))
    for notice in (*splits.notices, *splits.skipped):
        tell({"event": "notice", "text": notice})
    train, val = splits.train, splits.val
    assert train is not None
    assert val is not None
    facts = fingerprint(train)
    # The run must find the same data from any folder, and read its masks the same way.
    pinned = pin_paths(config.data, base).model_dump()
    as_read = {"labels": splits.labels.to_dict(), "mask_values": splits.description["mask_values"]}
    config = configs.replace(config, data=pinned | as_read)
    size = facts.sizes[1][0] * facts.sizes[1][1] * (facts.channels + 1) * 2
    machine = plan.Machine("cuda" if torch.cuda.is_available() else "cpu", cores(), cache_fits(train, size))
    config, reasons = plan.derive(config, facts, machine)
    crops, model, loss = _parts(config, train, facts)
    if config.train.head_rate is None:
        factor, reasons["train.head_rate"] = plan.head_rate(head_inputs(model))
        config = configs.replace(config, train={"head_rate": factor})
    config, more = budget.choose_precision(config, model, loss, crops)
    card = _card(config, splits, facts)
    config, length = _length(request, config, (model, loss, crops, card), (val, facts), began)
    config, settled = plan.settle(config, facts, train.groups())
    reasons |= more | length | settled
    crops.transform = _transform(config, train)
    write_json(out / DATA, {"fingerprint": facts.to_dict(), "splits": splits.description, "skipped": splits.skipped})
    # Last, since its presence says that the plan stands.
    write_atomic(out / CONFIG, configs.dump_config(config, reasons))
    tell({"event": "plan", "config": config.model_dump(mode="json"), "reasons": reasons})
    return _Prepared(_work(config, splits, facts, crops, model, loss, out), splits, card)


def _length(
    request: Request,
    config: Config,
    parts: tuple[SegmentationModel, CombinedLoss, Crops, ModelCard],
    known: tuple[Dataset, Fingerprint],
    began: float,
) -> tuple[Config, Reasons]:
    """Settle how many steps and validations there are."""
    (model, loss, crops, card), (val, facts) = parts, known
    batch = (config.train.batch_size or 1) * config.train.accumulate
    limit = request.time_limit
    if limit is not None and _timed(request):
        per_validation = _validation_seconds(config, model, card, val)

        def planned(measured_steps: int) -> tuple[Config, Reasons]:
            seconds = budget.step_seconds(config, model, loss, crops, measured_steps), per_validation
            return budget.plan_steps(config, *seconds, left=limit - (time.monotonic() - began), limit=limit)

        # How much is augmented depends on the number of steps, and what a step takes on how much is augmented.
        rough, _ = planned(3)
        crops.transform = _transform(plan.settle(rough, facts, crops.dataset.groups())[0], crops.dataset)
        return planned(12)
    reasons: Reasons = {}
    steps = config.train.steps
    if steps is None:
        epochs = request.epochs if request.epochs is not None else 100.0
        steps = max(round(epochs * len(crops) / batch), 1)
        reasons["train.steps"] = f"{epochs:g} epochs of {len(crops)} pictures, {batch} a step"
    validations = config.train.validations
    if validations is None:
        validations = max(1, min(10, steps // 20))
        reasons["train.validations"] = "every 20 steps at most, and at most 10"
    return configs.replace(config, train={"steps": steps, "validations": validations}), reasons


def _fit_within(limit: float, began: float, prepared: _Prepared, out: Path, listener: Listener | None) -> _Prepared:
    """Train, and count the steps again on the way, since a machine that other work shares does not keep its pace."""
    work, before, marks = prepared.work, None, [(0, 0.0)]
    per_validation = _validation_seconds(work.config, work.model, prepared.card, _val(prepared.splits))
    while (border := next_recount(work.config.train)) is not None:
        state = fit(work, listener, until=border)
        if before is None:  # what an earlier process spent on steps, this one did not
            before = max(state.seconds - (time.monotonic() - began), 0.0)
        train, due = work.config.train, validation_steps(work.config.train)
        marks.append((border, state.seconds))
        pace = budget.slower_pace(marks, due, per_validation)
        left = limit - before - (time.monotonic() - began)
        more = budget.fitting_steps(pace, per_validation, max(sum(d > border for d in due), 1), left)
        recounts = (*train.recounts, (border, border + max(more, 1)))
        _write_recounts(out / CONFIG, recounts)
        work = replace(work, config=configs.replace(work.config, train={"recounts": recounts}))
    fit(work, listener)
    return replace(prepared, work=work)


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


def _validation_seconds(config: Config, model: SegmentationModel, card: ModelCard, val: Dataset) -> float:
    few = val.subset(range(min(len(val), 3)))
    predictor = _predictor(config, model, card)
    quick_miou(few.subset([0]), predictor)
    began = time.perf_counter()
    quick_miou(few, predictor)
    model.train()
    return (time.perf_counter() - began) / len(few) * len(val)


def _resume(out: Path, tell: Listener) -> _Prepared:
    """Take up the plan that stands in `out`.

    Raises:
        DataError: the data set is no longer the same.
    """
    config = configs.load_config(out / CONFIG)
    splits = _open(config, out, str(out))
    facts = Fingerprint.from_dict(json.loads((out / DATA).read_text())["fingerprint"])
    assert splits.train is not None
    if splits.train.hash() != facts.hash:
        raise DataError(
            config.data.root or out,
            expected="the training part as it was when the run began",
            found="other files",
            do="Restore them, or train anew with another --out.",
        )
    tell({"event": "plan", "config": config.model_dump(mode="json"), "reasons": {}})
    crops, model, loss = _parts(config, splits.train, facts)
    return _Prepared(_work(config, splits, facts, crops, model, loss, out), splits, _card(config, splits, facts))


def _parts(config: Config, train: Dataset, facts: Fingerprint) -> tuple[Crops, SegmentationModel, CombinedLoss]:
    """Make stream, model and loss: each a function of config, data and seed."""
    labels, settings = train.labels, config.train
    mean, std = tuple(config.model.mean or ()), tuple(config.model.std or ())
    if len(mean) != facts.channels or len(std) != facts.channels:
        raise ConfigError(
            "model.mean, model.std",
            expected=f"{facts.channels} values each",
            found=f"{len(mean)}, {len(std)}",
            do="Give one per band.",
        )
    crops = Crops(train, _transform(config, train), settings.seed, settings.cache or False)
    torch.manual_seed(settings.seed)
    model = build_model(config.model.name, **_arguments(config, train, facts))
    weights = class_weights(config.loss.class_weights or "none", facts.pixel_counts, facts.image_counts)
    begin_at_prior(model, [weight * count for weight, count in zip(weights, facts.pixel_counts, strict=True)])
    loss = combined_loss(
        config.loss,
        num_classes=labels.num_classes,
        ignore_index=labels.ignore_index,
        class_weights=torch.tensor(weights, dtype=torch.float32, device=settings.device),
    )
    return crops, model, loss


def _transform(config: Config, train: Dataset) -> CropTransform:
    crop, share = config.train.crop or (256, 256), config.train.class_crops or 0.0
    mean, std = tuple(config.model.mean or ()), tuple(config.model.std or ())
    return CropTransform(crop, config.augment, share, train.labels.ignore_index, mean, std)


def _arguments(config: Config, train: Dataset, facts: Fingerprint) -> dict[str, Any]:
    return {
        "in_channels": facts.channels,
        "num_classes": train.labels.num_classes,
        "features": config.model.features,
        "up": config.model.up,
        "stem": config.model.stem,
        "mean": config.model.mean,
        "std": config.model.std,
    }


def _card(config: Config, splits: DataSplits, facts: Fingerprint) -> ModelCard:
    assert splits.train is not None
    return ModelCard(
        architecture={"name": config.model.name, "arguments": _arguments(config, splits.train, facts)},
        labels=splits.labels,
        channels=facts.channels,
        dtype=facts.dtype,
        tile=config.predict.tile or (512, 512),
        overlap=config.predict.overlap,
        mirrors=tuple(d for d in ("horizontal", "vertical") if getattr(config.augment, f"flip_{d}")),
        data_hash=facts.hash,
    )


def _predictor(config: Config, model: SegmentationModel, card: ModelCard) -> Predictor:
    train = config.train
    return Predictor.from_model(
        model,
        card,
        device=train.device or "cpu",
        precision=train.precision or "fp32",
        flips=card.mirrors if config.predict.flips else False,
    )


def _work(
    config: Config,
    splits: DataSplits,
    facts: Fingerprint,
    crops: Crops,
    model: SegmentationModel,
    loss: CombinedLoss,
    out: Path,
) -> Work:
    val, card = splits.val, _card(config, splits, facts)
    assert val is not None

    def validate(averaged: SegmentationModel, check: Callable[[], None]) -> float:
        return quick_miou(val, _predictor(config, averaged, card), stop=check)[0]

    def keep(averaged: SegmentationModel, miou: float, step: int) -> None:
        save_model(out / MODEL, averaged, replace(card, scores={"val_miou": miou, "step": step}))

    return Work(config, model, loss, crops, validate, keep, out)


def _finish(prepared: _Prepared, out: Path, tell: Listener) -> Path:
    """Score the best model with intervals and mark the run as finished."""
    model, card = load_model(out / MODEL)
    val = prepared.splits.val
    assert val is not None

    def progress(done: int, total: int) -> None:
        tell({"event": "scoring", "done": done, "total": total})

    result = evaluate(val, _predictor(prepared.work.config, model, card), progress=progress)
    plain = {"split": "val", **result.scores.to_dict()}
    save_model(out / MODEL, model, replace(card, scores={**(card.scores or {}), "val": plain}))
    write_json(out / SCORES, plain)
    tell({"event": "finished", "scores": plain, "folder": str(out)})
    return out
