"""How the verbs speak: one JSON document on standard output, or text for people; progress on standard error.

Comes in: plain values and events. Goes out: text. Knows nothing of what they mean beyond their keys.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; everything else goes to standard error.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a key of the configuration.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in --out.")]

_PLAIN_EVERY = 10.0


class Progress:
    """Show progress: one live line on a terminal, a plain line now and then elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.shown = 0.0
        self.open = False

    def line(self, text: str, last: bool = False) -> None:
        """Show the newest state; `last` ends the line."""
        now = time.monotonic()
        if self.live:
            if last or now - self.shown > 0.1:
                complain(f"\r\033[K{text}" + ("\n" if last else ""))
                self.shown, self.open = now, not last
        elif last or now - self.shown > _PLAIN_EVERY:
            complain(text + "\n")
            self.shown = now

    def say(self, text: str) -> None:
        """Write a line that stays."""
        complain(("\r\033[K" if self.open else "") + text + "\n")
        self.open = False


def print_json(plain: Any) -> None:
    """Write one JSON document to standard output; in escapes what its encoding cannot hold."""
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(plain, indent=1, allow_nan=False)
    put(text + "\n")


def put(text: str) -> None:
    """Write to standard output; where its reader has gone, end in peace."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def complain(text: str) -> None:
    """Write to standard error; where nobody listens any more, the work goes on."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Write seconds for people: 42 s, 3:07 min, 1:02:03 h."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} h"


def percent(value: float | None) -> str:
    """Write a share for people."""
    return "–" if value is None else f"{100 * value:.1f} %"


def print_scores(plain: dict[str, Any], *, title: str, baseline: dict[str, Any] | None = None) -> None:
    """Print a table of scores with intervals, and what a model that always says one class would get."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 100)
    with console.capture() as written:
        console.print(_overlaps(plain, title))
        if any("hausdorff" in row for row in plain["classes"]):
            console.print(_surfaces(plain["classes"]))
        console.print(f"{plain['convention']}\n{plain['interval']}", style="dim", markup=False)
        if baseline:
            console.print(
                f"For comparison: always answering {baseline['answer']!r} gets pixel accuracy "
                f"{percent(baseline['pixel_accuracy'])} and mIoU {percent(baseline['miou'])}.",
                style="dim",
                markup=False,
            )
    put(written.get())


def _overlaps(plain: dict[str, Any], title: str) -> Any:
    """Lay out the scores of each class, and those over all classes below."""
    from rich.markup import escape  # names and paths may hold [brackets]
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    near = any("boundary_iou" in row for row in plain["classes"])
    for column in (
        "IoU",
        "95 % interval",
        "Dice",
        *(["near edges"] if near else []),
        "precision",
        "recall",
        "pixels",
        "n",
    ):
        table.add_column(column, justify="right")
    for row in plain["classes"]:
        keys = ("precision", "recall") if not near else ("boundary_iou", "precision", "recall")
        table.add_row(
            escape(row["name"]),
            percent(row["iou"]),
            _interval(row, "iou"),
            percent(row["dice"]),
            *(percent(row[key]) for key in keys),
            f"{row['pixels']:,}",
            "–" if row.get("iou_n") is None else str(row["iou_n"]),
        )
    table.add_section()
    means = [
        ("mIoU", "miou"),
        ("mIoU, true classes", "miou_present"),
        ("mean Dice", "mean_dice"),
        ("pixel accuracy", "pixel_accuracy"),
    ]
    means += [("mIoU near edges", "boundary_miou"), ("calibration error", "ece")]
    for name, key in means:
        if key in plain:
            cells = [percent(plain[key]), _interval(plain, key)]
            n = plain.get(f"{key}_n")
            rest = [""] * (len(table.columns) - 4)
            table.add_row(
                f"[bold]{name}", *cells, *rest, "–" if n is None else str(n), style="bold" if key == "miou" else ""
            )
    return table


def _surfaces(classes: list[dict[str, Any]]) -> Any:
    """Lay out distances between surfaces, in the unit that the convention names."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("Hausdorff", "95 %", "mean distance", "surface Dice", "missed", "invented", "n"):
        table.add_column(column, justify="right")
    for row in classes:
        far = [
            "–" if row[key] is None else f"{row[key]:.2f}" for key in ("hausdorff", "hausdorff95", "surface_distance")
        ]
        shares = [percent(row[key]) for key in ("surface_dice", "missed", "invented")]
        table.add_row(escape(row["name"]), *far, *shares, str(row["hausdorff_n"]))
    return table


def print_peer(plain: dict[str, Any]) -> None:
    """Print the numbers by another library's convention, where there are any."""
    peer = plain.get("peer")
    if peer is None:
        return
    put(f"\nBy the convention of {peer['convention']}:\n")
    for score in peer["scores"]:
        interval = _interval(score, "value")
        put(f"  {percent(score['value'])} ({interval})  {score['call']}: {score['says']}\n")


def _interval(row: dict[str, Any], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return "–" if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f}"


def training_listener(progress: Progress) -> Any:
    """Give a listener that shows the events of a training run."""

    def listen(event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "notice":
            progress.say(f"note: {event['text']}")
        elif kind == "plan":
            _say_plan(progress, event["config"], event["reasons"])
        elif kind == "resume":
            progress.say(f"going on at step {event['step']} of {event['steps']}")
        elif kind == "recount":
            progress.say(f"step {event['step']}: counted again, {event['steps']} steps in all")
        elif kind == "step":
            progress.line(_step_line(event), last=event["step"] == event["steps"])
        elif kind == "skipped":
            progress.say(f"step {event['step']} skipped: loss {event['loss']}, gradient norm {event['gradient_norm']}")
        elif kind == "validation":
            best = " (best so far)" if event["best"] else ""
            progress.say(f"step {event['step']}: validation mIoU {percent(event['miou'])}{best}")
        elif kind == "calibrated":
            before, after = percent(event["ece_before"]), percent(event["ece_after"])
            progress.say(f"temperature {event['temperature']:.3g}: calibration error {before} → {after} on validation")
        elif kind in ("calibrating", "scoring"):
            progress.line(f"{kind} {event['done']} of {event['total']}", last=event["done"] == event["total"])

    return listen


def _step_line(event: dict[str, Any]) -> str:
    rate = event["step"] / event["seconds"] if event["seconds"] else 0.0
    speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s/step"
    score = "" if event["miou"] is None else f" · best mIoU {percent(event['miou'])}"
    done = event["step"] / event["steps"]
    bar = "━" * round(done * 24) + "╌" * (24 - round(done * 24))
    return (
        f"{bar} step {event['step']}/{event['steps']} · loss {event['loss']:.3f}{score} · {speed} · "
        f"{duration(event['eta'])} left"
    )


def _say_plan(progress: Progress, config: dict[str, Any], reasons: dict[str, str]) -> None:
    model, train = config["model"], config["train"]
    crop = "×".join(map(str, train["crop"]))
    widths = f" {model['features']}" if model["features"] else ""
    progress.say(
        f"plan: {model['name']}{widths}, {train['steps']} steps of {train['batch_size'] * train['accumulate']} "
        f"crops {crop}, {train['precision']}{', channels-last' if train['channels_last'] else ''}, on {train['device']}"
    )
    for key in ("train.steps", "model.stem", "loss.class_weights"):
        if key in reasons:
            section, name = key.split(".")
            progress.say(f"      {name} {config[section][name]}: {reasons[key]}")
