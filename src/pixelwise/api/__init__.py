"""The verbs, one function each: what the command line does, for Python.

Comes in: paths, options, arrays. Goes out: plain results and files. Knows nothing of terminals; everything heavy is
imported when a verb needs it, so that importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.api.checking import Checkup, check
from pixelwise.api.converting import convert
from pixelwise.api.loading import HUB_NAME, Model, Run, load
from pixelwise.api.reporting import report
from pixelwise.api.scoring import compare, evaluate, split_of
from pixelwise.errors import OutputExistsError, PixelwiseError, UsageError

if TYPE_CHECKING:
    from pixelwise.api.predicting import Predicted
    from pixelwise.models.catalogue import Entry

__all__ = [
    "Checkup", "Model", "Run", "check", "compare", "convert", "draw_demo_data", "draw_sheet", "evaluate", "import_weights", "load", "models",
    "predict", "push", "report", "train",
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
    """Train on a data set, or go on with the unfinished run in `out`.

    Args:
        data: a folder, a `data.yaml`, or a recipe.
        model: name of the network (see `pixelwise models`), or a folder with a checkpoint of transformers.
        out: run folder; `runs/<name of the data>` where not given.
        time_limit: seconds, or text like "10m"; at most one of `time_limit`, `steps`, `epochs`.
        steps: optimizer steps.
        epochs: passes over the training part.
        seed: of everything drawn.
        overrides: "a.b=c" texts for the configuration.
        skip_bad: leave out files that cannot be used, count and record them.
        weights: what to begin with: imagenet, coco, ade20k, cityscapes, a folder or file, or a Hub name.
        freeze: what stands still: "encoder", "none", or its first N layers.
        accept_license: take weights that allow no commercial use.
        overwrite: replace a finished run or another request's in `out`; an unfinished one of this request goes on.
        listener: called with every event (see `training.runlog`).

    Raises:
        PixelwiseError: see `errors`; `Interrupted` leaves a run that the same call goes on with.
    """
    limit = _seconds(time_limit, steps, epochs)
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
    run = Run(train_run(request, Path(out) if out else Path("runs") / name, overwrite=overwrite, listener=listener))
    _report(run, listener)
    return run


def _seconds(time_limit: float | str | None, steps: int | None, epochs: float | None) -> float | None:
    """Read the time limit; refuse a second length beside it."""
    given = [k for k, v in (("time_limit", time_limit), ("steps", steps), ("epochs", epochs)) if v is not None]
    if len(given) > 1:
        raise UsageError(
            "train", expected="one of time_limit, steps, epochs", found=" and ".join(given), do="Leave the others out."
        )
    from pixelwise.training.budget import parse_duration

    try:
        return parse_duration(time_limit) if isinstance(time_limit, str) else time_limit
    except ValueError as error:
        raise UsageError(
            "--time-limit", expected="a duration", found=repr(time_limit), do="Write 90s, 10m or 1h30m."
        ) from error


def _report(run: Run, listener: Listener | None) -> None:
    """Write the report of a run that has just ended; what goes wrong with it is told, and costs nothing else."""
    from pixelwise.config import load_config

    if not load_config(run.folder / "config.yaml").evaluate.report:
        return
    try:
        report(run.folder)
    except Exception as error:  # whatever it is, the run is finished and whole
        if listener is not None:
            said = str(error) if isinstance(error, PixelwiseError) else f"{type(error).__name__}: {error}"
            listener({"event": "notice", "text": f"no report was written: {said}"})


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
        model: a model, or what `load` takes.
        sources: files, folders (searched recursively) and globs.
        out: a new or empty folder, or an unfinished one of the same call, which is resumed.
        overlays: also write the masks drawn over the images.
        probabilities: also write the probability of every class.
        overrides: "predict.a=b" texts for the configuration, which replace what `model.json` says.
        overwrite: replace an earlier result in `out`.
        progress: called with (done, total, name) after each file.

    Raises:
        PixelwiseError: see `api.predicting.predict_files`.
    """
    from pixelwise.api.predicting import predict_files, predict_settings

    settings = predict_settings(overrides)
    loaded = model if isinstance(model, Model) else load(model)
    texts = [str(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    return predict_files(
        loaded.with_settings(**settings).predictor,
        texts,
        Path(out),
        model=loaded.card.sha256,
        overlays=overlays,
        probabilities=probabilities,
        overwrite=overwrite,
        progress=progress,
    )


def models(search: str = "") -> tuple[Entry, ...]:
    """List the networks whose name holds a word: see `models.catalogue.Entry`."""
    from pixelwise.models import catalogue

    return catalogue.search(search)


def import_weights(file: str | Path, out: str | Path, *, overwrite: bool = False) -> int:
    """Write the tensors of a pickled checkpoint as safetensors; give their number.

    A pickle can run whatever its author wrote. Only tensors are read, but that reader was got around before: only for
    files of people one trusts.

    Raises:
        ModelFileError: no tensors in the file.
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
            path, expected="no such file", found="one", do="Choose another --out, or add --overwrite."
        )
    tensors = read_foreign(Path(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, safetensors.torch.save(tensors))
    return len(tensors)


def push(model: str | Path, repository: str, *, public: bool = False) -> str:
    """Copy a model to the Hugging Face Hub with a README; give its address (see `models.hub.push`)."""
    from pixelwise.models import hub

    if not HUB_NAME.fullmatch(repository):
        raise UsageError("push", expected="OWNER/NAME", found=repr(repository), do="Name the repository so.")
    return hub.push(load(model).folder, repository, private=not public)


def draw_demo_data(
    folder: Path, *, overwrite: bool = False, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Draw the demonstration's road scenes into `folder/data`; `folder` must be new, empty or an earlier demonstration."""
    from pixelwise.demo.synthetic import write_road_scenes
    from pixelwise.storage import claim_folder

    claim_folder(folder, overwrite, (_DEMO, "data", "run", "evaluation", "predictions", "look.png"), _DEMO)
    (folder / _DEMO).write_text("made by `pixelwise demo`, which may replace this folder\n", encoding="utf-8")
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
    """Draw images, truths, predictions and differences of `count` images, spread over a part, as one PNG."""
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
