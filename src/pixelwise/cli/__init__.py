"""The command line: parse, call the API, print.

Comes in: arguments. Goes out: text on standard error, results on standard output, an exit code. Knows nothing of how the
work is done; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from pixelwise import __version__
from pixelwise.cli import check, compare, convert, demo, evaluate, import_weights, models, predict, push, report, train
from pixelwise.cli.terminal import complain
from pixelwise.errors import PixelwiseError, ResourceError

app = typer.Typer(
    name="pixelwise",
    help="Train, score and use models that give every pixel a class.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pixelwise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, score and use models that give every pixel a class."""


for verb in (demo, check, train, evaluate, compare, report, predict, convert, models, import_weights, push):
    app.command(name=verb.__name__.rpartition(".")[2].replace("_", "-"))(verb.run)


def main() -> None:
    """Run the command line and leave with 0 done, 1 problems found, 2 usage, 3 data, 4 resources, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may be any bytes, and a terminal may know few letters; neither may end the work.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a reader that has gone can still be answered
    except PixelwiseError as error:
        complain(f"\r\033[K{error}\n" if sys.stderr.isatty() else f"{error}\n")
        sys.exit(error.exit_code)
    except MemoryError as error:
        complain(f"memory: expected enough, found too little ({error}). Use smaller images, or a larger machine.\n")
        sys.exit(ResourceError.exit_code)
    except KeyboardInterrupt:
        complain("\nstopped\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
