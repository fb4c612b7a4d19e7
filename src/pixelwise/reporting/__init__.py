"""The report: one HTML file that shows how good predictions are, and where every number comes from.

Comes in: plain scores, a run folder, a way to fetch images. Goes out: the file. Knows nothing of models or of
training.
"""

from pixelwise.reporting.checkup import write_checkup
from pixelwise.reporting.page import write_report
from pixelwise.reporting.thumbnails import choose

__all__ = ["choose", "write_checkup", "write_report"]
