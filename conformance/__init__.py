"""Known pitfalls of segmentation libraries: cases with one right answer, and an adapter per library.

    python -m conformance                      all installed libraries; writes docs/conformance.md
    python -m conformance --library pixelwise  only this library; prints the results

Speed and model quality are not measured here, see `benchmarks`.
"""
