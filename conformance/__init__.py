"""What every segmentation library should get right: cases with one right answer, and an adapter per library.

    python -m conformance                      all that is installed; writes docs/conformance.md
    python -m conformance --library pixelwise  one library; prints alone

Comes in: nothing but installed libraries. Goes out: a table of cases and libraries. Knows nothing of speed or of how
well anything learns.
"""
