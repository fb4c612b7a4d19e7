"""Silence what libraries log and warn while they read a file, since pixelwise's own error says what is wrong with it.

The state is that of the process, as the filters of `warnings` are: it is changed when the first of several threads begins to read
and restored when the last one ends, so that nothing else is silenced for longer.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# A filter has no effect on the loggers below its own.
_LOGGERS = (
    *("tifffile", "imagecodecs", "pydicom", "nibabel.global", "PIL", "PIL.TiffImagePlugin", "PIL.PngImagePlugin"),
    *("rasterio", "rasterio._env", "rasterio._err", "rasterio._base", "rasterio._io", "rasterio.crs", "rasterio._crs"),
)
_lock = threading.Lock()
_readers = 0
_filters: warnings.catch_warnings[None] | None = None


def _not_reading(record: logging.LogRecord) -> bool:
    return _readers == 0


@contextmanager
def silenced() -> Iterator[None]:
    """Drop warnings, and the records of libraries that read files, in this process."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _readers, _filters
    with _lock:
        if _readers == 0:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(_not_reading)  # a filter is added only once
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.simplefilter("ignore")
        _readers += 1


def _leave() -> None:
    global _readers, _filters
    with _lock:
        _readers -= 1
        if _readers == 0 and _filters is not None:
            _filters.__exit__(None, None, None)
            _filters = None
