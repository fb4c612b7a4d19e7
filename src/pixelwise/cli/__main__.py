"""Let `python -m pixelwise.cli` be the command."""

from pixelwise.cli import main

main()
