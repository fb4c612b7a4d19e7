"""HTML reports of evaluations and data checks, and drawings of masks over images.

Reports are made from plain results, run folders and a function that fetches images. They must not depend on models or
training.
"""

from pixelwise.reporting.checkup import write_checkup
from pixelwise.reporting.report import write_report

__all__ = ["write_checkup", "write_report"]
