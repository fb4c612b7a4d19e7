"""`pixelwise compare RUN RUN…`: whether the difference between models is real."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, percent, print_json, put

_MEANS = (("mIoU", "miou"), ("mean Dice", "mean_dice"), ("pixel accuracy", "pixel_accuracy"))


def run(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Two or more, each against the first: run folders, or what evaluate wrote with --out. With --data also "
            "model folders and folders of masks.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Evaluate each on these images first: a folder, a data.yaml, a recipe or an annotation file."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --data: train, val or test, which is the default.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Tell whether one model is better than another, on the same images: differences with intervals, and a verdict."""
    from pixelwise import api

    progress = Progress()

    def scoring(name: str, done: int, total: int) -> None:
        progress.line(f"scoring {name}: {done} of {total}", last=done == total)

    plain = api.compare(runs, data=data, split=split, overrides=overrides or (), progress=scoring).to_dict()
    for notice in plain["notices"]:
        progress.say(f"note: {notice}")
    if as_json:
        print_json(plain)
    else:
        _print(plain)


def _print(plain: dict[str, Any]) -> None:
    """Print a table and sentences per pair, and where there are more than two models their ranking."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 100)
    scores = {entry["name"]: entry for entry in plain["scores"]}
    with console.capture() as written:
        if len(scores) > 2:
            console.print(_ranking([scores[name] for name in plain["ranking"]]))
            console.print()
        for pair in plain["pairs"]:
            console.print(_table(pair, plain["images"]))
            console.print()
            for sentence in pair["sentences"]:
                console.print(sentence, markup=False)
            console.print()
        console.print(f"{plain['convention']}\n{plain['interval']}", style="dim", markup=False)
    put(written.get())


def _ranking(standings: list[dict[str, Any]]) -> Any:
    table = _empty("by mIoU")
    for column in ("mIoU", "95 % interval", "runs"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in standings:
        table.add_row(_safe(entry["name"]), percent(entry["miou"]), _bounds(entry, "miou_"), str(len(entry["runs"])))
    return table


def _table(pair: dict[str, Any], images: int) -> Any:
    table = _empty(f"{pair['b']} against {pair['a']}, {images} images")
    for name in (pair["a"], pair["b"]):
        table.add_column(_safe(name), justify="right", overflow="fold", max_width=12)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in pair["classes"]:
        table.add_row(_safe(row["name"]), *_cells(row))
    table.add_section()
    for name, key in _MEANS:
        table.add_row(f"[bold]{name}", *_cells(pair[key]), style="bold" if key == "miou" else "")
    return table


def _empty(title: str) -> Any:
    from rich.table import Table

    table = Table(title=_safe(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    return table


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    change = "–" if row["difference"] is None else _signed(row["difference"])
    verdict = "not shown"
    if row["difference"] is None:
        verdict = ""
    elif row["shown"]:
        verdict = "better" if row["difference"] > 0 else "worse"
    return percent(row["a"]), percent(row["b"]), change, _bounds(row), verdict


def _bounds(row: dict[str, Any], prefix: str = "") -> str:
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    if low is None or high is None:
        return "–"
    return f"{100 * low:.1f} – {100 * high:.1f}" if prefix else f"{_signed(low)} to {_signed(high)}"


def _signed(value: float) -> str:
    """Write a difference in points; what rounds to nothing has no sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _safe(text: str) -> str:
    from rich.markup import escape  # names and paths may hold [brackets]

    return escape(text)
