"""The command line: parse arguments, call the API, print results.

The commands depend on `pixelwise.api` and `pixelwise.errors` only. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from pixelwise import __version__
from pixelwise.cli import (
    check,
    compare,
    convert,
    demo,
    evaluate,
    export,
    import_weights,
    measure,
    models,
    predict,
    push,
    report,
    train,
)
from pixelwise.cli.terminal import put_error
from pixelwise.errors import PixelwiseError, ResourceError

app = typer.Typer(
    name="pixelwise",
    help="Train, evaluate and use image segmentation models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"pixelwise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, evaluate and use image segmentation models."""


for verb in (
    demo,
    check,
    train,
    evaluate,
    compare,
    report,
    predict,
    measure,
    export,
    convert,
    models,
    import_weights,
    push,
):
    app.command(name=verb.__name__.rpartition(".")[2].replace("_", "-"))(verb.run)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 problems found, 2 usage, 3 data, 4 resources, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # File names may be any bytes and the encoding of a terminal may be limited; neither may stop the work.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a closed pipe is still handled
    except PixelwiseError as error:
        put_error(f"\r\033[K{error}\n" if sys.stderr.isatty() else f"{error}\n")
        sys.exit(error.exit_code)
    except MemoryError as error:
        put_error(
            f"memory: expected enough memory, found too little ({error}). Use smaller images or a larger machine.\n"
        )
        sys.exit(ResourceError.exit_code)
    except KeyboardInterrupt:
        put_error("\ninterrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
