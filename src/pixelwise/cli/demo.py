"""`pixelwise demo`: all steps once, on synthetic road scenes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pixelwise.cli.terminal import (
    Json,
    Overwrite,
    Progress,
    counted,
    duration,
    print_json,
    print_scores,
    put,
    training_listener,
)
from pixelwise.errors import Interrupted, ResourceError


def run(
    out: Annotated[str, typer.Option(help="Folder for all files.")] = "demo",
    time_limit: Annotated[str, typer.Option(help="Training time.")] = "90s",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Generate a data set of road scenes, then check, train, evaluate and predict."""
    from pixelwise import api

    began = time.monotonic()
    progress = Progress()
    folder = Path(out)
    data, trained, scored = (str(folder / name) for name in ("data", "run", "evaluation"))

    def step(text: str, command: str = "") -> None:
        progress.say(f"\n{text}\n$ {command}" if command else f"\n{text}")

    step(f"Generate road scenes in {data}, with the classes background, road, vehicle and pedestrian")
    api.draw_demo_data(
        folder, overwrite=overwrite, progress=lambda k, n: progress.line(f"image {k} of {n}", last=k == n)
    )
    step("Check the data", f"pixelwise check {data}")
    findings = api.check(data).findings
    for finding in findings:
        progress.say(f"{finding.severity}: {finding.what}")
    if not findings:
        progress.say("no problems found")
    step("Train a U-Net from scratch", f"pixelwise train {data} --model unet --time-limit {time_limit} --out {trained}")
    _train(data, time_limit, trained, progress)
    step("Evaluate on images not used for training", f"pixelwise evaluate {trained} {data} --out {scored}")
    scores = api.evaluate(trained, data, out=scored).to_dict()
    if not as_json:
        print_scores(
            scores, title=f"{trained} · test, {counted(scores['images'], 'image')}", baseline=scores["baseline"]
        )
    step("Predict masks", f"pixelwise predict {trained} {data}/test/images --out {folder / 'predictions'}")
    api.predict(trained, f"{data}/test/images", out=folder / "predictions")
    sheet = api.draw_sheet(trained, data, folder / "look.png", count=6)
    seconds = time.monotonic() - began
    if as_json:
        facts = {"data": data, "run": trained, "sheet": str(sheet), "report": f"{scored}/report.html"}
        print_json(facts | {"seconds": seconds} | scores)
        return
    put(
        f"\nDone in {duration(seconds)}. Results:\n"
        f"  {scored}/report.html    scores, errors, and the definition of each score\n"
        f"  {sheet}    images, ground truth, predictions and differences\n"
        f"  {folder / 'predictions' / 'overlays'}    all test images with their masks\n"
        f"  {trained}/config.yaml    the configuration, with reasons\n"
        "\nNext, with your own images in my_data/images and masks in my_data/masks:\n"
        "  pixelwise check my_data\n"
        "  pixelwise train my_data --time-limit 10m\n"
    )


def _train(data: str, time_limit: str, out: str, progress: Progress) -> None:
    """Train; errors name what can be done with the options of the demo, or the command that resumes the training."""
    from pixelwise import api

    try:
        api.train(data, model="unet", time_limit=time_limit, out=out, listener=training_listener(progress))
    except Interrupted as error:
        command = f"pixelwise train {data} --model unet --time-limit {time_limit} --out {out}"
        raise Interrupted(error.where, found=error.found, do=f"To resume: {command}") from None
    except ResourceError as error:
        if error.where != "--time-limit":
            raise
        raise ResourceError(
            error.where, expected=error.expected, found=error.found, do="Allow more time, such as --time-limit 90s."
        ) from None
