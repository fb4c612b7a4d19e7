"""`pixelwise measure MASKS`: areas and volumes with units and intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.terminal import (
    Json,
    Overrides,
    Overwrite,
    Progress,
    counted,
    escaped,
    percent,
    percent_interval,
    print_json,
    put,
    put_rich,
)
from pixelwise.errors import UsageError

if TYPE_CHECKING:
    from pixelwise.api import AreaReport, ClassSize, Measured, ProposedSample, TotalsReport, Verdict, ZoneTotal


# Images whose classes are printed; more are in the table of --out.
_PRINTED = 5
_PRINTED_ZONES = 20
_PRINTED_VERDICTS = 20


def run(
    masks: Annotated[
        str,
        typer.Argument(
            metavar="MASKS",
            help="An output folder of predict; a mask file or a folder of them; or a data set, for its masks.",
        ),
    ],
    out: Annotated[str | None, typer.Option(help="Folder for the tables, or for the sample.")] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            help="Distance between pixels, such as 0.21mm, or 0.21mm,0.18mm between rows and between columns; by default that "
            "of the files."
        ),
    ] = None,
    scale_bar: Annotated[
        str | None,
        typer.Option(
            metavar="X1,Y1,X2,Y2=LENGTH",
            help="A line of known length in the images, such as 40,900,440,900=50mm: columns and rows of its ends.",
        ),
    ] = None,
    ground_plane: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help='Four or more points of the images with their places on the ground in metres: "x,y=X,Y;x,y=X,Y;…", or a YAML file.',
        ),
    ] = None,
    zones: Annotated[
        str | None, typer.Option(help="Polygons (GeoPackage, Shapefile, GeoJSON) in which each class is measured, too.")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="A data set with masks for some of the images, drawn at random: estimates totals over all images."
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Draw N points on a map, and write a page to answer on to --out, instead of measuring."
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(help="The answers, or the folder of the sample: estimates areas on the map, and its accuracy."),
    ] = None,
    estimator: Annotated[str, typer.Option(help="Of --answers: stratified or olofsson.")] = "stratified",
    fail: Annotated[bool, typer.Option("--fail", help="Exit with code 1 if a verdict is reject.")] = False,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Measure the area or volume of each class in masks, with units and intervals."""
    from pixelwise import api

    progress = Progress()
    for option, value in {
        "--truth": truth,
        "--zones": zones,
        "--scale-bar": scale_bar,
        "--ground-plane": ground_plane,
    }.items():
        _require_one_of({option: value, "--sample": sample, "--answers": answers})
    if sample is not None:
        if out is None:
            do = "Add --out FOLDER."
            raise UsageError("--sample", expected="a folder for the points and the page", found="no --out", do=do)
        proposed = api.propose_sample(
            masks, size=sample, out=out, spacing=spacing, overwrite=overwrite, progress=progress.line
        )
        _show(proposed, as_json, progress, _print_sample)
        return
    if answers is not None:
        areas = api.estimate_areas(masks, answers, estimator=estimator, spacing=spacing, out=out, overwrite=overwrite)
        _show(areas, as_json, progress, _print_areas)
        return
    result = api.measure(
        masks,
        out=out,
        spacing=spacing,
        scale_bar=scale_bar,
        ground_plane=ground_plane,
        zones=zones,
        truth=truth,
        regions=bool(out) or as_json,
        overrides=overrides or (),
        overwrite=overwrite,
    )
    _show(result, as_json, progress, _print)
    if out and not as_json:
        put(f"\nclasses  {out}/classes.csv\nregions  {out}/regions.csv ({len(result.regions):,})\n")
        put(f"zones    {out}/zones.csv\n" if zones else "")
        put(f"verdicts {out}/verdicts.csv\n" if result.verdicts else "")
    if fail and result.verdicts is None:
        do = "Add --set measure.rules=FILE."
        raise UsageError("--fail", expected="rules", found="none, neither given nor in the model", do=do)
    if fail and any(each.outcome == "reject" for each in result.verdicts or ()):
        raise typer.Exit(1)


def _require_one_of(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(" ".join(given), expected="one of them", found="both", do="Run one command for each.")


def _show(result: Any, as_json: bool, progress: Progress, to_terminal: Callable[[Any], None]) -> None:
    for notice in result.notices:
        progress.say(f"note: {notice}")
    if as_json:
        print_json(result.to_dict())
    else:
        to_terminal(result)


def _print_sample(sample: ProposedSample) -> None:
    strata = "1 stratum" if len(sample.strata) == 1 else f"{len(sample.strata)} strata"
    put(f"{counted(sample.points, 'point')} in {strata}\n\n")
    for name in sample.files:
        put(f"wrote    {sample.folder}/{name}\n")
    put(
        f"\nOpen {sample.folder}/index.html, answer, save answers.csv into {sample.folder}, then: --answers {sample.folder}\n"
    )


def _print_areas(report: AreaReport) -> None:
    """Print the areas with their intervals, the pixel count beside them, and the accuracies."""
    from rich.text import Text

    table = _empty(
        f"areas from {counted(report.answered, 'answer')}",
        ("area", "95 % interval", "pixel count", "its error", "user's accuracy", "producer's accuracy"),
    )
    for each in report.classes:
        area = each.area
        table.add_row(
            escaped(each.name),
            f"{_number(area.value)} {area.unit}",
            _interval(area.low, area.high, area.unit),
            f"{_number(each.mapped.value)} {each.mapped.unit}",
            "–" if each.bias is None else f"{each.bias:+.1%}",
            *(_accuracy(accuracy) for accuracy in (each.users, each.producers)),
        )
    notes = dict.fromkeys(each.area.note for each in report.classes if each.area.note)
    lines = [
        f"overall accuracy {_accuracy(report.overall)}",
        f"{report.estimator}; {report.provenance}",
        f"{report.unsure} unsure, {report.missing} without an answer",
    ]
    put_rich(table, Text("\n".join([*lines, *map(str, notes)]), "dim"))


def _accuracy(share: Any) -> str:
    if share is None:
        return "–"
    return f"{percent(share.value)} ({percent_interval(share.low, share.high)})"


def _print(result: Measured) -> None:
    """Print the totals if there are any, the zones or the verdicts, otherwise the classes of the first images, with what the intervals cover."""
    from rich.text import Text

    if result.totals is not None:
        put_rich(_totals(result.totals), Text(_facts_of_totals(result.totals), "dim"))
        return
    if result.zones:
        put_rich(*_zones(result.zones))
        return
    if result.verdicts is not None:
        put_rich(*_verdicts(result.verdicts))
        return
    images = list(dict.fromkeys(each.image for each in result.classes))
    blocks: list[Any] = []
    for image in images[:_PRINTED]:
        classes = [each for each in result.classes if each.image == image]
        blocks += [_table(classes), Text(_facts(classes), "dim"), ""]
    if len(images) > _PRINTED:
        blocks += [Text(f"{counted(len(images) - _PRINTED, 'more image')} in the table of --out", "dim"), ""]
    put_rich(*blocks)


def _table(classes: list[ClassSize]) -> Any:
    table = _empty(classes[0].image, ("pixels", "share", "size", "interval"))
    for each in classes:
        size = each.size
        table.add_row(
            escaped(each.name),
            f"{each.pixels:,}",
            f"{each.share:.2%}",
            f"{_number(size.value)} {size.unit}",
            _interval(size.low, size.high, size.unit),
        )
    return table


def _facts(classes: list[ClassSize]) -> str:
    """Return the estimator, the origin of the unit, and what the intervals cover, each once."""
    notes = dict.fromkeys(each.size.note for each in classes if each.size.note)
    return "\n".join([f"{classes[0].size.estimator}; {classes[0].provenance}", *map(str, notes)])


def _zones(zones: Sequence[ZoneTotal]) -> list[Any]:
    """Return a table of the first zones, with one row per zone and class."""
    from rich.text import Text

    names = list(dict.fromkeys(each.zone for each in zones))
    table = _empty("zones", ("class", "area", "share", "inside"))
    for each in zones:
        if each.zone in names[:_PRINTED_ZONES]:
            inside = "–" if each.inside is None else percent(each.inside)
            area = f"{_number(each.size.value)} {each.size.unit}"
            table.add_row(escaped(each.zone), escaped(each.class_name), area, f"{each.share:.2%}", inside)
    lines = [f"{zones[0].size.estimator}; share of the zone that shows a class; no intervals: see --truth and --sample"]
    if len(names) > _PRINTED_ZONES:
        lines.append(f"{counted(len(names) - _PRINTED_ZONES, 'more zone')} in the table of --out")
    return [table, Text("\n".join(lines), "dim")]


def _verdicts(verdicts: Sequence[Verdict]) -> list[Any]:
    """Return a table of the worst verdicts, and their numbers."""
    from rich.text import Text

    order = {"reject": 0, "review": 1, "pass": 2}
    table = _empty("verdicts", ("verdict",))
    table.add_column("reasons", overflow="fold")
    for each in sorted(verdicts, key=lambda each: order[each.outcome])[:_PRINTED_VERDICTS]:
        table.add_row(escaped(each.image), each.outcome, escaped("; ".join(each.reasons)))
    counts = ", ".join(f"{sum(each.outcome == name for each in verdicts)} {name}" for name in order)
    more = len(verdicts) - _PRINTED_VERDICTS
    return [table, Text(counts + (f"; {more} more in the table of --out" if more > 0 else ""), "dim")]


def _totals(totals: TotalsReport) -> Any:
    table = _empty(
        f"total of {counted(totals.population, 'image')}", ("estimate", "95 % interval", "sum of masks", "its bias")
    )
    for each in totals.classes:
        total = each.total
        bias = "–" if each.naive_bias is None else f"{each.naive_bias:+.1%}"
        cells = (f"{_number(total.value)} {total.unit}", _interval(total.low, total.high, total.unit))
        table.add_row(escaped(each.name), *cells, f"{_number(each.naive.value)} {each.naive.unit}", bias)
    return table


def _facts_of_totals(totals: TotalsReport) -> str:
    notes = dict.fromkeys(each.total.note for each in totals.classes if each.total.note)
    units = "" if totals.units == totals.images else f" in {counted(totals.units, 'group')}"
    head = (
        f"{totals.classes[0].total.estimator}, {counted(totals.images, 'labelled image')}{units}; {totals.provenance}"
    )
    return "\n".join([head, *map(str, notes)])


def _interval(low: float | None, high: float | None, unit: str) -> str:
    return "–" if low is None or high is None else f"{_number(low)}–{_number(high)} {unit}"


def _number(value: float) -> str:
    """Format a size with four significant digits, without an exponent from 0.001 on."""
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.4g}"


def _empty(title: str, columns: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(title=escaped(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
