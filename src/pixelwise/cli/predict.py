"""`pixelwise predict MODEL SOURCE…`: predict masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.terminal import (
    Backend,
    Json,
    Overrides,
    Overwrite,
    Precision,
    Progress,
    percent,
    print_json,
    put,
    say_engine,
)

if TYPE_CHECKING:
    from pixelwise.api.predicting import Predicted

_SHOWN = 8


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder, a model folder or an exported file.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE…", help="Images, scenes, volumes, videos, folders or glob patterns."),
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for the masks.")] = ...,  # type: ignore[assignment]
    watch: Annotated[
        str | None, typer.Option(metavar="DIR", help="Predict images as they are added to this folder, until Ctrl-C.")
    ] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over mirrored copies: slower, slightly better.")
    ] = False,
    overlays: Annotated[bool, typer.Option(help="Also write the masks drawn over the images.")] = True,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of each class.")
    ] = False,
    every: Annotated[int | None, typer.Option(metavar="N", help="Of videos, predict each N-th frame.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Of videos, start here: 90, 1:30.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Of videos, stop before this time.")] = None,
    backend: Backend = "auto",
    precision: Precision = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Predict masks. Files that cannot be read are reported and skipped, with exit code 3."""
    from pixelwise import api
    from pixelwise.errors import UsageError

    if bool(sources) == (watch is not None):
        found = "both" if sources else "neither"
        raise UsageError(
            "predict", expected="SOURCE… or --watch DIR", found=found, do="Name images or a folder to watch."
        )
    settings = [*(overrides or ()), *_video_settings(every, start, stop)]
    progress = Progress()
    opened = api.load(model, flips=flips or None, backend=backend, precision=precision)

    def report(done: int, total: int, name: str) -> None:
        progress.line(f"predicting {done} of {total}: {name}", last=done == total)

    options: dict[str, Any] = {"out": out, "overlays": overlays, "probabilities": probabilities}
    options |= {"overrides": settings, "overwrite": overwrite, "progress": report}
    if watch is not None:
        api.watch(opened, watch, **options)
        return
    result = api.predict(opened, sources or [], **options)
    say_engine(progress, result.engine)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)
    for notice in (*result.notices, *(text for entry in result.images for text in entry.get("notices", ()))):
        progress.say(notice)
    for failure in result.failed:
        progress.say(failure["error"])
    if result.failed:
        raise typer.Exit(3)


def _print(result: Predicted) -> None:
    """Print the shares of the classes in the first files, and how many were predicted."""
    for entry in result.images[:_SHOWN]:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in entry["shares"].items() if share >= 0.0005)
        put(f"{entry['file']}: {shares}\n")
    if len(result.images) > _SHOWN:
        put(f"… and {len(result.images) - _SHOWN} more\n")
    put(f"\n{len(result.images)} predicted, {len(result.failed)} failed: {result.folder}\n")


def _video_settings(every: int | None, start: str | None, stop: str | None) -> list[str]:
    """Return the keys that the options about videos set."""
    values = {"every": every, "start": _seconds("--from", start), "stop": _seconds("--to", stop)}
    return [f"predict.{key}={value}" for key, value in values.items() if value is not None]


def _seconds(option: str, text: str | None) -> float | None:
    """Read a time: seconds, minutes:seconds, or hours:minutes:seconds."""
    from pixelwise.errors import UsageError

    if text is None:
        return None
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or any(number < 0 for number in numbers):
        raise UsageError(option, expected="a time such as 90, 1:30 or 0:01:30", found=text, do="Correct the time.")
    return sum(number * 60**place for place, number in enumerate(reversed(numbers)))
