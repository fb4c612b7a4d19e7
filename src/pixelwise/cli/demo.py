"""`pixelwise demo`: the whole way once, on road scenes that are drawn for it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overwrite, Progress, duration, print_json, print_scores, put, training_listener
from pixelwise.errors import Interrupted


def run(
    out: Annotated[str, typer.Option(help="Folder for everything.")] = "demo",
    time_limit: Annotated[str, typer.Option(help="How long the training may take.")] = "90s",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw a road-scene data set, then check, train, evaluate and predict, and show what to look at."""
    from pathlib import Path

    from pixelwise import api

    began, progress, folder = time.monotonic(), Progress(), Path(out)
    data, trained, scored = (str(folder / name) for name in ("data", "run", "evaluation"))

    def step(text: str, command: str | None = None) -> None:
        progress.say(f"\n{text}" + (f"\n$ {command}" if command else ""))

    step(f"Drawing road scenes into {data}: background, road, vehicle, pedestrian")
    api.draw_demo_data(
        folder, overwrite=overwrite, progress=lambda k, n: progress.line(f"drawing {k} of {n}", last=k == n)
    )
    step("Is something wrong with the data?", f"pixelwise check {data}")
    findings = api.check(data).findings
    for finding in findings:
        progress.say(f"{finding.severity}: {finding.what}")
    if not findings:
        progress.say("nothing found")
    step("Train a U-Net from scratch", f"pixelwise train {data} --time-limit {time_limit} --out {trained}")
    _train(data, time_limit, trained, progress)
    step("How good is it on images it has never seen?", f"pixelwise evaluate {trained} {data} --out {scored}")
    result = api.evaluate(trained, data, out=scored)
    plain = result.to_dict()
    if not as_json:
        print_scores(plain, title=f"{trained} · test, {plain['images']} images", baseline=plain["baseline"])
    step("Predict masks", f"pixelwise predict {trained} {data}/test/images --out {folder / 'predictions'}")
    api.predict(trained, f"{data}/test/images", out=folder / "predictions")
    sheet = api.draw_sheet(trained, data, folder / "look.png", count=6)
    if as_json:
        print_json(
            {
                "data": data,
                "run": trained,
                "sheet": str(sheet),
                "report": f"{scored}/report.html",
                "seconds": time.monotonic() - began,
                **plain,
            }
        )
        return
    put(f"\nDone in {duration(time.monotonic() - began)}. Look at:\n")
    put(
        f"  {scored}/report.html    how good it is, where it fails, and what every number means\n"
        f"  {sheet}    images, truth, prediction, and where they differ\n"
        f"  {folder / 'predictions' / 'overlays'}    every test image with its mask\n"
        f"  {trained}/config.yaml    every choice, and why\n"
        "\nNext, with your own images in my_data/images and masks in my_data/masks:\n"
        "  pixelwise check my_data\n"
        "  pixelwise train my_data --time-limit 10m\n"
    )


def _train(data: str, time_limit: str, out: str, progress: Progress) -> None:
    """Train; say how to go on without the rest of the demonstration where it is stopped."""
    from pixelwise import api

    try:
        api.train(data, time_limit=time_limit, out=out, listener=training_listener(progress))
    except Interrupted as stopped:
        again = f"pixelwise train {data} --time-limit {time_limit} --out {out}"
        raise Interrupted(stopped.where, expected=stopped.expected, found=stopped.found, do=f"Go on: {again}") from None
