"""What the benchmarks share: data sets, recipes, command-line arguments, description of the machine, formatting."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[1] / "recipes"
# Only training is compared: no calibration, further scores or report.
TRAINING_ALONE = ("evaluate.metrics=[]", "evaluate.temperature=false", "evaluate.report=false")
SETS = ("camvid", "drive", "magnetic_tile", "aerial_roads")
CPU_FEATURES = ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
NOT_MEASURED = "Not measured yet: run the command above."


def parser_with_root(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options --root and --table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the data sets")
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; --root is required unless --table is given."""
    args = parser.parse_args()
    if args.root is None and not args.table:
        parser.error("--root: expected the folder with the data sets, found nothing. Set it, or use --table.")
    return args


def processor() -> str:
    """Return the name of the processor as the system reports it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return which instructions for matrices and bf16 the processor has, by the names of Linux."""
    lines = path.read_text().splitlines() if path.exists() else []
    flags = {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
    return [name for name in CPU_FEATURES if name in flags]


def run_each(module: str, args: argparse.Namespace, runs: Iterable[tuple[Path, Sequence[object]]]) -> None:
    """Measure in one process per run, one after the other, what has no result yet.

    Args:
        module: module of the benchmark, which measures one run with `--one`.
        args: its command line, with --root and --results.
        runs: result file and arguments of `--one` of each run.

    Raises:
        SystemExit: runs failed; the others were measured.
    """
    failed = []
    for path, run in runs:
        if not path.exists():
            print(*run, sep=", ", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", f"benchmarks.{module}", "--root", str(args.root)]
            command += ["--results", str(args.results), "--one", *map(str, run)]
            if subprocess.run(command).returncode:
                failed.append(path.stem)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {', '.join(failed)}. The same command repeats them.")


def version() -> str:
    """Return the commit of the working copy, followed by -dirty if files differ from it."""
    command = ["git", "-C", str(RECIPES.parent), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def machine() -> dict[str, Any]:
    """Describe the machine and the version of torch."""
    import torch

    about = {"torch": torch.__version__, "processor": processor(), "cores": torch.get_num_threads()}
    return about | {"cpu_features": cpu_features()}


def added_memory(work: Callable[[], Any]) -> tuple[int, int]:
    """Return the bytes that a call adds to the memory of this process: at its end and at its peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _memory("VmRSS")
    result = work()
    kept, peak = _memory("VmRSS") - before, max(_memory("VmHWM") - before, 0)
    del result  # kept until here, so that its memory counts
    return kept, peak


def _memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read the events of a training run."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def last_step(run: Path) -> int:
    """Return the number of steps of a training run."""
    return max(event.get("step", 0) for event in read_log(run))


def spread(values: Sequence[float]) -> str:
    """Format mean, lowest and highest value, and n; a single value as it is."""
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "–"
    return f"{statistics.mean(values):.1f} ({min(values):.1f}–{max(values):.1f}, n = {len(values)})"
