"""The exceptions of pixelwise.

    PixelwiseError                exit code 1
    ├── UsageError           2    the command or its options
    │   ├── ConfigError           a key or value of the configuration
    │   └── OutputExistsError     the output already exists
    ├── DataError            3    something in the user's files
    │   ├── ImageError            an image cannot be decoded
    │   ├── MaskError             a mask is not valid
    │   ├── PairingError          images and masks do not match
    │   │   ├── SizeMismatchError     in size
    │   │   └── GridMismatchError     in georeference, or position of voxels
    │   ├── LabelsError           the description of the classes
    │   └── ModelFileError        a model folder is incomplete or modified
    ├── ResourceError        4    memory, disk, time
    │   ├── OutOfMemoryError      not enough memory for an image or a batch
    │   └── DivergedError         repeated NaN or infinite values in training
    ├── ParityError          1    an exported model gives other masks
    └── Interrupted        130    interrupted; the same command resumes

Messages have the form ``where: expected …, found …. Do …``, that of `Interrupted` ``where: interrupted; …. Do …``.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class PixelwiseError(Exception):
    """Base class of all errors: where, what was expected, what was found, and what to do.

    Args:
        where: the file, key, line or argument.
        expected: completes "expected …".
        found: completes "found …".
        do: how to fix it, as one or more sentences.
    """

    exit_code = 1
    _form = "{0.where}: expected {0.expected}, found {0.found}. {0.do}"

    def __init__(self, where: object, *, expected: str, found: str, do: str) -> None:
        self.where, self.expected, self.found, self.do = str(where), expected, found, do
        super().__init__(self._form.format(self))

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, so that errors can be raised in worker processes."""
        return _rebuild, (type(self), self.where, self.expected, self.found, self.do)


def _rebuild(kind: type[PixelwiseError], where: str, expected: str, found: str, do: str) -> PixelwiseError:
    return kind(where, expected=expected, found=found, do=do)


class UsageError(PixelwiseError):
    """A command, an option or an argument is not valid."""

    exit_code = 2


class ConfigError(UsageError):
    """A key or a value of the configuration is not valid."""


class OutputExistsError(UsageError):
    """The output already exists."""


class DataError(PixelwiseError):
    """The user's files are not valid."""

    exit_code = 3


class ImageError(DataError):
    """An image cannot be decoded, or exceeds the size limits."""


class MaskError(DataError):
    """A mask does not consist of class ids."""


class PairingError(DataError):
    """Images and masks do not match."""


class SizeMismatchError(PairingError):
    """A mask differs in size from its image."""


class GridMismatchError(PairingError):
    """A mask differs in georeference, or in the position of its voxels, from its image."""


class LabelsError(DataError):
    """The description of the classes is not valid."""


class ModelFileError(DataError):
    """A model folder is incomplete, modified or of an unknown version."""


class ResourceError(PixelwiseError):
    """Not enough memory, disk space or time."""

    exit_code = 4


class OutOfMemoryError(ResourceError):
    """Not enough memory for an image or a batch."""


class DivergedError(ResourceError):
    """The loss or the gradient was NaN or infinite several times in a row."""


class ParityError(PixelwiseError):
    """An exported model gives other masks than the model it was made from."""


class Interrupted(PixelwiseError):  # noqa: N818 - a request, not an error
    """The work was interrupted; the same command resumes it.

    Args:
        where: the output folder.
        found: what is finished or saved.
        do: how to resume.
        expected: not part of the message.
    """

    exit_code = 130
    _form = "{0.where}: interrupted; {0.found}. {0.do}"

    def __init__(
        self,
        where: object,
        *,
        found: str,
        do: str = "Run the same command again to resume.",
        expected: str = "no interruption",
    ) -> None:
        super().__init__(where, expected=expected, found=found, do=do)


@contextmanager
def convert_memory_errors(where: object, do: str) -> Iterator[None]:
    """Convert the out-of-memory errors of numpy and torch to `OutOfMemoryError`.

    Args:
        where: subject of the message.
        do: advice of the message.

    Raises:
        OutOfMemoryError: instead of the original error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = " ".join(str(error).split())
        # torch has an exception class for GPUs, but raises a plain RuntimeError on the CPU.
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(f"{type(error).__name__} {message}"):
            raise
        raise OutOfMemoryError(where, expected="enough memory", found=message[:160] or "too little", do=do) from error


_OUT_OF_MEMORY = re.compile(r"OutOfMemory|out of memory|not enough memory|can't allocate memory|Cannot allocate memory")


def renamed(old: str, new: str) -> property:
    """Return a property for an old attribute name: a deprecated alias of the new attribute."""

    def get(self: object) -> Any:
        message = f"{type(self).__name__}.{old} is now called {new}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(get, doc=f"Deprecated name of `{new}`.")


def nearest(name: str, valid: Iterable[str], otherwise: str = "Choose one of them.") -> str:
    """Return advice that names the valid name nearest to a misspelt one, or `otherwise` if none is near."""
    near = difflib.get_close_matches(name, list(valid), 1, 0.4)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def wrong_bands(where: object, expected: int, found: int) -> DataError:
    """Return the error for an image with another number of bands than the model was trained on."""
    return DataError(
        where,
        expected=f"{expected} band{'s' if expected != 1 else ''}",
        found=str(found),
        do=f"Use images of the kind that the model was trained on, or train a model on {found} bands.",
    )
