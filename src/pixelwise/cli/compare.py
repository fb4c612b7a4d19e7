"""`pixelwise compare RUN RUN…`: differences between models, with intervals and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.terminal import (
    Json,
    Overrides,
    Progress,
    counted,
    escaped,
    percent,
    percent_interval,
    print_json,
    put_rich,
)

if TYPE_CHECKING:
    from pixelwise.api import Comparison, Difference, Pair

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
    from rich.text import Text

    blocks = [_ranking(comparison), ""] if len(comparison.standings) > 2 else []
    for pair in comparison.pairs:
        blocks += [_table(pair, comparison.images), "", *map(Text, pair.sentences), ""]
    put_rich(*blocks, Text(f"{comparison.convention}\n{comparison.interval}", "dim"))


def _ranking(comparison: Comparison) -> Any:
    table = _empty("by mIoU")
    for column in ("mIoU", "95 % interval", "runs"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in comparison.ranking():
        miou = entry.means["miou"]
        interval = percent_interval(miou.low, miou.high)
        table.add_row(escaped(entry.name), percent(miou.value), interval, str(len(entry.runs)))
    return table


def _table(pair: Pair, images: int) -> Any:
    table = _empty(f"{pair.b} against {pair.a}, {counted(images, 'image')}")
    for name in (pair.a, pair.b):
        table.add_column(escaped(name), justify="right", overflow="fold", max_width=12)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in pair.classes:
        table.add_row(escaped(row.name), *_cells(row))
    table.add_section()
    for name, key in _MEANS:
        table.add_row(f"[bold]{name}", *_cells(pair.means[key]), style="bold" if key == "miou" else "")
    return table


def _empty(title: str) -> Any:
    from rich.table import Table

    table = Table(title=escaped(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    return table


def _cells(row: Difference) -> tuple[str, ...]:
    change, interval, verdict = "–", "–", ""
    if row.difference is not None:
        change, verdict = _signed(row.difference), "not significant"
        if row.shown:
            verdict = "better" if row.difference > 0 else "worse"
    if row.low is not None and row.high is not None:
        interval = f"{_signed(row.low)} to {_signed(row.high)}"
    return percent(row.a), percent(row.b), change, interval, verdict


def _signed(value: float) -> str:
    """Format a difference in points; zero has no sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
