"""The public functions, one per command of the command line.

Heavy dependencies are imported inside the functions, so that importing this module is fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.api.checking import Checkup, check
from pixelwise.api.converting import convert
from pixelwise.api.exporting import export
from pixelwise.api.loading import HUB_NAME, Model, Run, load
from pixelwise.api.reporting import report
from pixelwise.api.scoring import compare, evaluate, metric_names, split_of
from pixelwise.errors import OutputExistsError, PixelwiseError, UsageError
from pixelwise.storage import claim_folder, require_claimable

if TYPE_CHECKING:
    from pixelwise.api.measuring.areas import AreaReport as AreaReport
    from pixelwise.api.measuring.result import ClassSize as ClassSize
    from pixelwise.api.measuring.result import Measured as Measured
    from pixelwise.api.measuring.sampling import ProposedSample as ProposedSample
    from pixelwise.api.measuring.totals import TotalsReport as TotalsReport
    from pixelwise.api.predicting import Predicted
    from pixelwise.evaluation.comparison import Comparison as Comparison
    from pixelwise.evaluation.comparison import Difference as Difference
    from pixelwise.evaluation.comparison import Pair as Pair
    from pixelwise.evaluation.comparison import Standing as Standing
    from pixelwise.evaluation.kept import KeptMasks
    from pixelwise.measuring.rules import Verdict as Verdict
    from pixelwise.measuring.zones import ZoneTotal as ZoneTotal
    from pixelwise.models.catalogue import Entry

__all__ = [
    "Checkup", "Model", "Run", "check", "compare", "convert", "draw_demo_data", "draw_sheet", "estimate_areas", "evaluate", "export", "import_weights", "load", "measure", "metric_names",
    "models",
    "predict", "propose_sample", "push", "report", "train",
]  # fmt: skip
Listener = Callable[[dict[str, Any]], None]
_DEMO = ".pixelwise-demo"


def train(
    data: str | Path,
    *,
    model: str | None = None,
    out: str | Path | None = None,
    time_limit: float | str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    skip_bad: bool = False,
    weights: str | Path | None = None,
    freeze: str | int | None = None,
    accept_license: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Run:
    """Train on a data set, or resume the unfinished run in `out`.

    Args:
        data: a folder, a `data.yaml`, or a recipe.
        model: name of the network (see `pixelwise models`), or a folder with a transformers checkpoint.
        out: run folder; `runs/<name of the data>` by default.
        time_limit: seconds, or a text such as "10m"; at most one of `time_limit`, `steps`, `epochs`.
        steps: optimizer steps.
        epochs: passes over the training split.
        seed: random seed.
        overrides: configuration overrides such as "train.batch_size=8".
        skip_bad: skip files that cannot be used, and record them.
        weights: initial weights: imagenet, coco, ade20k, cityscapes, a folder or file, or a Hub name.
        freeze: layers to freeze: "encoder", "none", or the number of first layers.
        accept_license: accept weights with a non-commercial licence.
        overwrite: replace a finished run, or one with other arguments, in `out`; an unfinished run with the same arguments is
            resumed.
        listener: called with each event (see `training.runlog`).

    Raises:
        PixelwiseError: see `errors`. After `Interrupted`, the same call resumes the run.
    """
    started = time.monotonic()
    limit = _seconds(time_limit, steps, epochs)
    from pixelwise.evaluation.kept import KeptMasks
    from pixelwise.training.budget import TOLERANCE
    from pixelwise.training.run import Request, train_run

    path = Path(data)
    name = (path.parent if path.stem == "data" else path).resolve().stem
    request = Request(
        data=str(data),
        model=model,
        time_limit=limit,
        steps=steps,
        epochs=epochs,
        seed=seed,
        overrides=tuple(overrides),
        skip_bad=skip_bad,
        weights=None if weights is None else str(weights),
        freeze=None if freeze is None else str(freeze),
        accept_license=accept_license,
    )
    folder = Path(out) if out else Path("runs") / name
    masks = KeptMasks()
    run = Run(train_run(request, folder, overwrite=overwrite, listener=listener, started=started, masks=masks))
    _report(run, listener, None if limit is None else started + TOLERANCE * limit, masks)
    return run


def _seconds(time_limit: float | str | None, steps: int | None, epochs: float | None) -> float | None:
    """Return the time limit in seconds, and check that at most one limit is given."""
    given = [k for k, v in (("time_limit", time_limit), ("steps", steps), ("epochs", epochs)) if v is not None]
    if len(given) > 1:
        raise UsageError(
            "train", expected="one of time_limit, steps, epochs", found=" and ".join(given), do="Keep one of them."
        )
    from pixelwise.training.budget import parse_duration

    try:
        return parse_duration(time_limit) if isinstance(time_limit, str) else time_limit
    except ValueError as error:
        raise UsageError(
            "--time-limit", expected="a duration", found=repr(time_limit), do="Write 90s, 10m or 1h30m."
        ) from error


def _report(run: Run, listener: Listener | None, deadline: float | None, masks: KeptMasks) -> None:
    """Write the report of a run that has just finished; errors are reported as notices."""
    from pixelwise.api.reporting import report_run
    from pixelwise.config import load_config

    if not load_config(run.folder / "config.yaml").evaluate.report:
        return
    try:
        report_run(run.folder, run.folder / "report.html", deadline, masks)
    except Exception as error:  # the run itself is complete
        if listener is not None:
            message = str(error) if isinstance(error, PixelwiseError) else f"{type(error).__name__}: {error}"
            listener({"event": "notice", "text": f"no report was written: {message}"})


def predict(
    model: str | Path | Model,
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    overlays: bool = True,
    probabilities: bool = False,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Predicted:
    """Predict images and volumes, given as files, folders and globs, into the folder `out`.

    Args:
        model: a loaded model, or the argument of `load`.
        sources: files, folders (searched recursively) and globs.
        out: a new or empty folder, or an unfinished one of the same call, which is resumed.
        overlays: also write the masks drawn over the images.
        probabilities: also write the probability of every class.
        overrides: settings such as "predict.tile=[512,512]", which take precedence over `model.json`.
        overwrite: replace an earlier result in `out`.
        progress: called with (done, total, name) after each file.

    Raises:
        PixelwiseError: see `api.predicting.predict_files`.
    """
    from pixelwise.api.predicting import predict_files, predict_settings

    settings, outputs = predict_settings(overrides)
    loaded = model if isinstance(model, Model) else load(model)
    texts = [str(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    return predict_files(
        loaded.with_settings(**settings),
        texts,
        Path(out),
        model=loaded.card.sha256,
        overlays=overlays,
        probabilities=probabilities,
        overwrite=overwrite,
        progress=progress,
        **outputs,
    )


def measure(
    predictions: str | Path,
    *,
    out: str | Path | None = None,
    spacing: str | None = None,
    scale_bar: str | None = None,
    ground_plane: str | None = None,
    zones: str | Path | None = None,
    truth: str | Path | None = None,
    regions: bool = True,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Measured:
    """Measure the classes in masks, with units and intervals: see `api.measuring.run.measure`."""
    from pixelwise.api.measuring.run import measure as work

    return work(
        predictions,
        out=out,
        spacing=spacing,
        scale_bar=scale_bar,
        ground_plane=ground_plane,
        zones=zones,
        truth=truth,
        regions=regions,
        overrides=overrides,
        overwrite=overwrite,
    )


def propose_sample(
    predictions: str | Path,
    *,
    size: int,
    out: str | Path,
    seed: int = 0,
    image: str | Path | None = None,
    spacing: str | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ProposedSample:
    """Draw points on a map, and write a page to answer on: see `api.measuring.sampling.propose_sample`."""
    from pixelwise.api.measuring.sampling import propose_sample as work

    return work(
        predictions, size=size, out=out, seed=seed, image=image, spacing=spacing, overwrite=overwrite, progress=progress
    )


def estimate_areas(
    predictions: str | Path,
    answers: str | Path,
    *,
    estimator: str = "stratified",
    sample: str | Path | None = None,
    spacing: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> AreaReport:
    """Estimate areas on a map, and its accuracy, from answers at points: see `api.measuring.areas.estimate_from_answers`.

    `out` is a new folder for `areas.csv`, `error_matrix.csv` and `areas.json`.
    """
    from pixelwise.api.measuring import areas

    if out is not None:
        require_claimable(Path(out), overwrite, areas.FILES, areas.REPORT)
    found = areas.estimate_from_answers(predictions, answers, estimator=estimator, sample=sample, spacing=spacing)
    if out is not None:
        claim_folder(Path(out), overwrite, areas.FILES, areas.REPORT)
        areas.write_area_report(found, out)
    return found


def watch(
    model: str | Path | Model,
    folder: str | Path,
    *,
    out: str | Path,
    overlays: bool = True,
    probabilities: bool = False,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Predicted:
    """Predict every image in a folder and those that are added to it, each once, until Ctrl-C.

    Args:
        model: a loaded model, or the argument of `load`.
        folder: searched with its subfolders.
        out: a new or empty folder, or that of an earlier call for the same folder, which is continued.
        overlays: also write the masks drawn over the images.
        probabilities: also write the probability of every class.
        overrides: settings, as for `predict`.
        overwrite: replace an earlier result in `out`.
        progress: called with (done, total, name) after each file of a group.

    Raises:
        PixelwiseError: see `api.predicting.watch_folder`.
    """
    from pixelwise.api.predicting import Outputs, predict_settings, watch_folder

    settings, more = predict_settings(overrides)
    loaded = model if isinstance(model, Model) else load(model)
    return watch_folder(
        loaded.with_settings(**settings),
        Path(folder),
        Path(out),
        model=loaded.card.sha256,
        outputs=Outputs(overlays, probabilities, **more),
        overwrite=overwrite,
        progress=progress,
    )


def models(search: str = "") -> tuple[Entry, ...]:
    """Return the networks whose name contains a text (see `models.catalogue.Entry`)."""
    from pixelwise.models import catalogue

    return catalogue.search(search)


def import_weights(file: str | Path, out: str | Path, *, overwrite: bool = False) -> int:
    """Convert a pickled checkpoint to safetensors, and return the number of tensors.

    Pickles can execute code. Only tensors are read, but such restrictions have been circumvented before: only use files
    from trusted sources.

    Raises:
        ModelFileError: the file contains no tensors.
        OutputExistsError: `out` exists.
    """
    import safetensors.torch

    from pixelwise.models.pretrained import read_foreign
    from pixelwise.storage import write_atomic

    path = Path(out)
    if path.suffix != ".safetensors":
        raise UsageError("--out", expected="a .safetensors file", found=str(out), do="Add the suffix.")
    if path.exists() and not overwrite:
        raise OutputExistsError(
            path, expected="a new file", found="an existing file", do="Choose another --out, or add --overwrite."
        )
    tensors = read_foreign(Path(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, safetensors.torch.save(tensors))
    return len(tensors)


def push(model: str | Path, repository: str, *, public: bool = False) -> str:
    """Upload a model to the Hugging Face Hub with a model card, and return its address (see `models.hub.push`)."""
    from pixelwise.models import hub

    if not HUB_NAME.fullmatch(repository):
        raise UsageError("push", expected="OWNER/NAME", found=repr(repository), do="Correct the name.")
    loaded = load(model)
    if loaded.folder.is_file():
        raise UsageError(
            model, expected="a model folder or a run folder", found="an exported file", do="Name the folder."
        )
    loaded.engines.open(loaded.engines.reference)  # the weights must be complete
    return hub.push(loaded.folder, repository, private=not public)


def draw_demo_data(
    folder: Path, *, overwrite: bool = False, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Generate the road scenes of the demo in `folder/data`; `folder` must be new, empty or an earlier demo."""
    from pixelwise.demo.synthetic import write_road_scenes
    from pixelwise.storage import claim_folder

    claim_folder(folder, overwrite, (_DEMO, "data", "run", "evaluation", "predictions", "look.png"), _DEMO)
    (folder / _DEMO).write_text("created by `pixelwise demo`, which may replace this folder\n", encoding="utf-8")
    write_road_scenes(folder / "data", progress=progress)
    return folder / "data"


def draw_sheet(
    model: str | Path | Model,
    data: str | Path,
    out: Path,
    *,
    count: int = 6,
    split: str = "test",
    overrides: Sequence[str] = (),
) -> Path:
    """Draw image, ground truth, prediction and difference of `count` images, evenly spaced in a split, as one PNG."""
    from pixelwise.config import read_request
    from pixelwise.datasets.dataset import open_data
    from pixelwise.imageio.images import fill_invalid
    from pixelwise.reporting.overlay import contact_sheet, write_png

    loaded = model if isinstance(model, Model) else load(model)
    config, base = read_request(Path(data), overrides)
    subset = split_of(open_data(config.data, base), split, data)
    rows = []
    for k in range(min(count, len(subset))):
        sample = subset.read(k * len(subset) // min(count, len(subset)))
        mask = loaded.predictor(sample.image, sample.grid, sample.valid).mask
        image = fill_invalid(sample.image, sample.valid)
        rows.append((image, sample.truth(loaded.labels.ignore_index), mask))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, contact_sheet(rows, loaded.labels))
    return out
