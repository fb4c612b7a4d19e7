"""Run the command line with `python -m pixelwise`."""

from pixelwise.cli import main

main()
