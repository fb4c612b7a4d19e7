"""How exactly `train --time-limit` is kept, on a quiet machine and while another process uses one core.

    python -m benchmarks.time_limit --root data --limit 4m        # all sets, both loads: about 8 runs of the limit each
    python -m benchmarks.time_limit --table                       # print the committed results as Markdown

`--root` has one folder per recipe. Each run is a process of its own, and its time is that of the whole process, from its start
to its end, including the imports and the report. Quiet and busy runs alternate. Busy: one process computes in an endless loop.
Results are added to `benchmarks/results/time_limit.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.protocol import (
    NOT_MEASURED,
    RECIPES,
    SETS,
    machine,
    parse,
    parser_with_root,
    read_json,
    read_log,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "time_limit.json"
LOADS = ("quiet", "busy")
BOUNDS = {"quiet": 0.10, "busy": 0.20}


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help="data set (repeatable); default: all")
    parser.add_argument("--load", choices=LOADS, action="append", dest="loads", help="default: both")
    parser.add_argument("--limit", default="4m")
    parser.add_argument("--repeats", type=int, default=1)
    args = parse(parser)
    if not args.table:
        for name in (args.sets or SETS) * args.repeats:
            for load in args.loads or LOADS:
                found = measure(name, load, args)
                print(json.dumps(found), file=sys.stderr, flush=True)
                rows = read_json(RESULTS)["runs"] if RESULTS.exists() else []
                write_json(RESULTS, {"machine": machine(), "runs": [*rows, found]})
    print(table())


def measure(name: str, load: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train once within the limit; return the seconds of the process and of its end."""
    from pixelwise.training.budget import parse_duration

    with tempfile.TemporaryDirectory() as folder, other_process(load == "busy"):
        run = Path(folder) / "run"
        root = f"data.root={(args.root / name).resolve()}"
        command = [sys.executable, "-m", "pixelwise", "train", str(RECIPES / f"{name}.yaml"), "--set", root]
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--time-limit", args.limit, "--out", str(run)], check=True, capture_output=True, text=True
        )
        seconds = time.monotonic() - began
        events = read_log(run)
        scores = read_json(run / "scores.json")
    steps = max(event.get("step", 0) for event in events)
    validations = [event["miou"] for event in events if event["event"] == "validation"]
    return {
        "set": name,
        "load": load,
        "limit": parse_duration(args.limit),
        "seconds": round(seconds, 1),
        "steps": steps,
        "best_validation_miou": round(max(validations), 4),
        "scored_images": scores["images"],
        "notices": [line for line in done.stderr.splitlines() if "time limit" in line],
    }


@contextlib.contextmanager
def other_process(wanted: bool) -> Iterator[None]:
    """Let another process use one core in the meantime."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def table() -> str:
    """Return the results as Markdown."""
    if not RESULTS.exists():
        return NOT_MEASURED
    content = read_json(RESULTS)
    lines = [
        "| data set | load | limit | took | of the limit | steps | scored images |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for run in sorted(content["runs"], key=lambda run: (run["set"], LOADS.index(run["load"]), run["limit"])):
        share = run["seconds"] / run["limit"]
        late = " (over)" if share > 1 + BOUNDS[run["load"]] else ""
        lines.append(
            f"| {run['set']} | {run['load']} | {run['limit']:.0f} s | {run['seconds']:.0f} s | {share:.0%}{late} | "
            f"{run['steps']} | {run['scored_images']} |"
        )
    about = content["machine"]
    return "\n".join([*lines, "", f"{about['processor']}, {about['cores']} cores, torch {about['torch']}."])


if __name__ == "__main__":
    main()
