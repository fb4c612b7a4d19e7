"""Output of the commands: one JSON document or tables on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; all other output goes to standard error.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a configuration key.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in --out.")]
Backend = Annotated[
    str, typer.Option(help="Engine: torch, openvino, onnxruntime, or auto for the fastest one with the same masks.")
]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16; by default either.")]

_PLAIN_INTERVAL = 10.0
_CLEAR = "\r\033[K"


class Progress:
    """Shows progress on standard error: one live line on a terminal, otherwise a plain line every 10 seconds."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.shown = 0.0
        self.open = False

    def line(self, text: str, last: bool = False) -> None:
        """Show the current state; `last` ends the line."""
        now = time.monotonic()
        if not last and now - self.shown <= (0.1 if self.live else _PLAIN_INTERVAL):
            return
        put_error((_CLEAR if self.live else "") + text + ("\n" if last or not self.live else ""))
        self.shown = now
        self.open = self.live and not last

    def say(self, text: str) -> None:
        """Print a permanent line."""
        put_error((_CLEAR if self.open else "") + text + "\n")
        self.open = False


def say_engine(progress: Progress, engine: Mapping[str, Any] | None) -> None:
    """Print the engine that computed the masks, and why; nothing if it is unknown."""
    if engine:
        progress.say(f"engine: {engine['name']}, {engine['precision']} ({engine['why']})")


def print_json(plain: Any) -> None:
    """Print one JSON document, with escapes for characters that the encoding of standard output lacks."""
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(plain, indent=1, allow_nan=False)
    put(text + "\n")


def put(text: str) -> None:
    """Write to standard output; exit normally if its reader has closed the pipe."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def put_error(text: str) -> None:
    """Write to standard error; ignore a closed pipe, so that the work continues."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def put_rich(*renderables: Any, width: int = 100) -> None:
    """Print rich tables and texts to standard output, `width` characters wide if it is not a terminal.

    Trailing spaces are removed.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else width)
    with console.capture() as captured:
        for renderable in renderables:
            console.print(renderable)
    put("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def duration(seconds: float) -> str:
    """Format a duration: 42 s, 3:07 min, 1:02:03 h."""
    total = max(round(seconds), 0)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60}:{total % 60:02d} min"
    return f"{total // 3600}:{total // 60 % 60:02d}:{total % 60:02d} h"


def counted(number: int, noun: str) -> str:
    """Format a number of things: 1 image, 2 images."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(value: float | None) -> str:
    """Format a share in percent."""
    return "–" if value is None else f"{100 * value:.1f} %"


def print_scores(plain: dict[str, Any], *, title: str, baseline: dict[str, Any] | None = None) -> None:
    """Print a table of scores with intervals, and the scores of a constant prediction.

    Args:
        plain: the scores, as in `scores.json`.
        title: title of the table.
        baseline: the entry `baseline` of `scores.json`.
    """
    from rich.text import Text

    tables = [_overlap_table(plain, title)]
    if any("hausdorff" in row for row in plain["classes"]):
        tables.append(_surface_table(plain["classes"]))
    notes = [f"Convention: {plain['convention']}.", f"Intervals: {plain['interval']}."]
    if baseline:
        notes.append(
            f"For comparison: predicting {baseline['answer']!r} everywhere gives a pixel accuracy of "
            f"{percent(baseline['pixel_accuracy'])} and an mIoU of {percent(baseline['miou'])}."
        )
    put_rich(*tables, Text("\n".join(notes), "dim"))


def _overlap_table(plain: dict[str, Any], title: str) -> Any:
    """Return a table of the scores by class, and of the scores over all classes below."""
    columns = {"dice": "Dice", "boundary_iou": "boundary IoU", "precision": "precision", "recall": "recall"}
    if not any("boundary_iou" in row for row in plain["classes"]):
        del columns["boundary_iou"]
    table = _table(["IoU", "95 % interval", *columns.values(), "pixels", "n"], title)
    for row in plain["classes"]:
        scores = [percent(row["iou"]), _interval(row, "iou"), *(percent(row[key]) for key in columns)]
        table.add_row(escaped(row["name"]), *scores, f"{row['pixels']:,}", _n(row, "iou"))
    table.add_section()
    means = {
        "miou": "mIoU",
        "miou_present": "mIoU, true classes",
        "mean_dice": "mean Dice",
        "pixel_accuracy": "pixel accuracy",
        "boundary_miou": "boundary mIoU",
        "ece": "calibration error",
    }
    for key, name in means.items():
        if key in plain:
            blank = [""] * (len(columns) + 1)
            cells = [percent(plain[key]), _interval(plain, key), *blank, _n(plain, key)]
            table.add_row(f"[bold]{name}", *cells, style="bold" if key == "miou" else "")
    return table


def _surface_table(classes: list[dict[str, Any]]) -> Any:
    """Return a table of surface distances, in the unit of the grid."""
    distances = {"hausdorff": "Hausdorff", "hausdorff95": "95 %", "surface_distance": "mean distance"}
    shares = {"surface_dice": "surface Dice", "missed": "missed", "invented": "invented"}
    table = _table([*distances.values(), *shares.values(), "n"])
    for row in classes:
        cells = ["–" if row[key] is None else f"{row[key]:.2f}" for key in distances]
        table.add_row(escaped(row["name"]), *cells, *(percent(row[key]) for key in shares), str(row["hausdorff_n"]))
    return table


def _table(columns: list[str], title: str | None = None) -> Any:
    from rich.table import Table

    shown = None if title is None else escaped(title)
    table = Table("", title=shown, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def escaped(text: str) -> str:
    """Escape a name or path, which may contain [brackets], for rich."""
    from rich.markup import escape

    return escape(text)


def percent_interval(low: float | None, high: float | None) -> str:
    """Format an interval of shares in percent."""
    return "–" if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f}"


def _interval(row: dict[str, Any], key: str) -> str:
    return percent_interval(row[f"{key}_low"], row[f"{key}_high"])


def _n(row: dict[str, Any], key: str) -> str:
    n = row.get(f"{key}_n")
    return "–" if n is None else str(n)


def print_peer(plain: dict[str, Any]) -> None:
    """Print the scores by the convention of another library, if there are any."""
    peer = plain.get("peer")
    if peer is None:
        return
    put(f"\nBy the convention of {peer['convention']}:\n")
    for score in peer["scores"]:
        put(f"  {percent(score['value'])}  {score['call']}: {score['says']}\n")


def training_listener(progress: Progress) -> Callable[[dict[str, Any]], None]:
    """Return a listener that shows the events of a training run."""

    def listen(event: dict[str, Any]) -> None:
        match event["event"]:
            case "notice":
                progress.say(f"note: {event['text']}")
            case "plan":
                _show_plan(progress, event["config"], event["reasons"])
            case "resume":
                progress.say(f"resuming at step {event['step']} of {event['steps']}")
            case "recount":
                progress.say(f"step {event['step']}: number of steps adjusted to {event['steps']}")
            case "step":
                progress.line(_step_line(event), last=event["step"] == event["steps"])
            case "skipped":
                progress.say(
                    f"step {event['step']} skipped: loss {event['loss']}, gradient norm {event['gradient_norm']}"
                )
            case "validation":
                best = " (best so far)" if event["best"] else ""
                subset = f" of {counted(event['images'], 'image')}" if event.get("images") else ""
                progress.say(f"step {event['step']}: validation mIoU{subset} {percent(event['miou'])}{best}")
            case "calibrated":
                change = f"{percent(event['ece_before'])} → {percent(event['ece_after'])}"
                progress.say(f"temperature {event['temperature']:.3g}: validation calibration error {change}")
            case "features":
                done, total = event["done"], event["total"]
                progress.line(f"features of the frozen encoder: image {done} of {total}", last=done == total)
            case "features stored":
                progress.say(_stored(event))
            case "calibrating" | "scoring" | "calibrating sizes" as stage:
                progress.line(f"{stage} {event['done']} of {event['total']}", last=event["done"] == event["total"])

    return listen


def _stored(event: dict[str, Any]) -> str:
    size = f"{event['bytes'] / 2**20:,.0f} MB in {'memory' if event['place'] == 'memory' else 'a file'}"
    left = event["total"] - event["stored"]
    rest = f"; the other {left} are computed when they are used" if left else ""
    return (
        f"features of {counted(event['stored'], 'augmented image')} stored: {size}, {duration(event['seconds'])}{rest}"
    )


def _step_line(event: dict[str, Any]) -> str:
    rate = event["step"] / event["seconds"] if event["seconds"] else 0.0
    speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s/step"
    score = "" if event["miou"] is None else f" · best mIoU {percent(event['miou'])}"
    filled = round(24 * event["step"] / event["steps"])
    return (
        f"{'━' * filled}{'╌' * (24 - filled)} step {event['step']}/{event['steps']} · loss {event['loss']:.3f}{score} · "
        f"{speed} · {duration(event['eta'])} left"
    )


def _show_plan(progress: Progress, config: dict[str, Any], reasons: dict[str, str]) -> None:
    model, train = config["model"], config["train"]
    crop = "×".join(map(str, train["crop"]))
    widths = f" {model['features']}" if model["features"] else ""
    encoder = f" with {model['encoder']}" if model["name"] == "fpn" else ""
    weights = "" if model["weights"] == "none" else f" and weights {model['weights']}"
    progress.say(
        f"plan: {model['name']}{widths}{encoder}{weights}, {train['steps']} steps of {train['batch_size'] * train['accumulate']} "
        f"crops {crop}, {train['precision']}{', channels-last' if train['channels_last'] else ''}, on {train['device']}"
    )
    for key in (
        "model.name",
        "train.steps",
        "train.validation_images",
        "train.size_calibration",
        "train.unfreeze",
        "model.stem",
        "loss.class_weights",
    ):
        if key in reasons:
            section, name = key.split(".")
            progress.say(f"      {name} {config[section][name]}: {reasons[key]}")
