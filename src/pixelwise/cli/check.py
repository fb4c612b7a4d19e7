"""`pixelwise check DATA`: what is wrong with the data, and the fix."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, print_json, put


def run(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml or a recipe.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with a data set. Leaves with 1 where something would block training."""
    from pixelwise import api

    progress = Progress()
    findings = api.check(
        data,
        overrides=overrides or (),
        progress=lambda done, total: progress.line(f"checking {done} of {total}", last=done == total),
    )
    if as_json:
        print_json({"data": data, "findings": [asdict(f) for f in findings]})
    for finding in [] if as_json else findings:
        files = ", ".join(finding.where[:3]) + (f" and {finding.count - 3} more" if finding.count > 3 else "")
        put(f"{finding.severity}: {finding.what}\n")
        put("".join(f"    {line}\n" for line in (files, finding.why, finding.fix) if line))
    if not findings and not as_json:
        put("nothing found: the data can be trained on\n")
    if any(f.severity == "error" for f in findings):
        raise typer.Exit(1)
