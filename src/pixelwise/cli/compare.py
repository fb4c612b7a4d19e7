"""`pixelwise compare RUN RUN…`: differences between models, with intervals and verdicts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, percent, print_json, put

if TYPE_CHECKING:
    from pixelwise.api import Comparison, Difference, Pair, Standing

_MEANS = (("mIoU", "miou"), ("mean Dice", "mean_dice"), ("pixel accuracy", "pixel_accuracy"))


def run(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Two or more, each compared with the first: run folders, or folders of evaluate --out. With --data also "
            "model folders and folders of masks.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Evaluate each on these images first: a folder, a data.yaml, a recipe or an annotation file."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --data: train, val or test (default).")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Compare models on the same images: differences with intervals and verdicts."""
    from pixelwise import api

    progress = Progress()

    def scoring(name: str, done: int, total: int) -> None:
        progress.line(f"scoring {name}: {done} of {total}", last=done == total)

    comparison = api.compare(runs, data=data, split=split, overrides=overrides or (), progress=scoring)
    for notice in comparison.notices:
        progress.say(f"note: {notice}")
    if as_json:
        print_json(comparison.to_dict())
    else:
        _print(comparison)


def _print(comparison: Comparison) -> None:
    """Print a table and sentences for each pair, and a ranking if there are more than two models."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 100)
    with console.capture() as written:
        if len(comparison.standings) > 2:
            console.print(_ranking(comparison))
            console.print()
        for pair in comparison.pairs:
            console.print(_table(pair, comparison.images))
            console.print()
            for sentence in pair.sentences:
                console.print(sentence, markup=False)
            console.print()
        console.print(f"{comparison.convention}\n{comparison.interval}", style="dim", markup=False)
    put(written.get())


def _ranking(comparison: Comparison) -> Any:
    table = _empty("by mIoU")
    for column in ("mIoU", "95 % interval", "runs"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in comparison.ranking():
        table.add_row(_safe(entry.name), percent(entry.means["miou"].value), _interval(entry), str(len(entry.runs)))
    return table


def _interval(standing: Standing) -> str:
    miou = standing.means["miou"]
    return "–" if miou.low is None or miou.high is None else f"{100 * miou.low:.1f} – {100 * miou.high:.1f}"


def _table(pair: Pair, images: int) -> Any:
    table = _empty(f"{pair.b} against {pair.a}, {images} images")
    for name in (pair.a, pair.b):
        table.add_column(_safe(name), justify="right", overflow="fold", max_width=12)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in pair.classes:
        table.add_row(_safe(row.name), *_cells(row))
    table.add_section()
    for name, key in _MEANS:
        table.add_row(f"[bold]{name}", *_cells(pair.means[key]), style="bold" if key == "miou" else "")
    return table


def _empty(title: str) -> Any:
    from rich.table import Table

    table = Table(title=_safe(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    return table


def _cells(row: Difference) -> tuple[str, ...]:
    change, interval, verdict = "–", "–", ""
    if row.difference is not None:
        change, verdict = _signed(row.difference), "not shown"
        if row.shown:
            verdict = "better" if row.difference > 0 else "worse"
    if row.low is not None and row.high is not None:
        interval = f"{_signed(row.low)} to {_signed(row.high)}"
    return percent(row.a), percent(row.b), change, interval, verdict


def _signed(value: float) -> str:
    """Format a difference in points; zero has no sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _safe(text: str) -> str:
    from rich.markup import escape  # names and paths may hold [brackets]

    return escape(text)
