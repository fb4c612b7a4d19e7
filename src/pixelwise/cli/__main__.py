"""Run the command line with `python -m pixelwise.cli`."""

from pixelwise.cli import main

main()
