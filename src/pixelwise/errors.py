"""Every exception of pixelwise, and the one grammar in which they speak.

Comes in: what was expected, what was found, what to do. Goes out: one exception with one message. Knows nothing of the
rest of the house.

    PixelwiseError                exit code 1
    ├── UsageError           2    the command or its options
    │   ├── ConfigError           a key or value of the configuration
    │   └── OutputExistsError     the output is there already
    ├── DataError            3    something in the user's files
    │   ├── ImageError            an image cannot be decoded
    │   ├── MaskError             a mask cannot be understood
    │   ├── PairingError          images and masks do not match up
    │   ├── LabelsError           the description of the classes
    │   └── ModelFileError        a model folder is incomplete or altered
    ├── ResourceError        4    memory, disk, time
    │   ├── OutOfMemoryError      an image or a batch is too large for this machine
    │   └── DivergedError         training met NaN or infinity again and again
    └── Interrupted        130    stopped on request; the same command goes on

Every message reads ``where: expected …, found …. Do …``.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class PixelwiseError(Exception):
    """Say where, what was expected, what was found, and what to do about it.

    Args:
        where: the file, key, line or argument the message is about.
        expected: what should have been there, as the end of "expected …".
        found: what was there instead, as the end of "found …".
        do: one or more full sentences that tell the fix.
    """

    exit_code = 1

    def __init__(self, where: object, *, expected: str, found: str, do: str) -> None:
        self.where, self.expected, self.found, self.do = str(where), expected, found, do
        super().__init__(f"{where}: expected {expected}, found {found}. {do}")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling, and so the way from a worker process to its parent."""
        return _rebuild, (type(self), self.where, self.expected, self.found, self.do)


def _rebuild(kind: type[PixelwiseError], where: str, expected: str, found: str, do: str) -> PixelwiseError:
    return kind(where, expected=expected, found=found, do=do)


class UsageError(PixelwiseError):
    """The command, an option or an argument is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A key or a value of the configuration is wrong."""


class OutputExistsError(UsageError):
    """Something already stands where the output should go."""


class DataError(PixelwiseError):
    """Something in the user's files is wrong."""

    exit_code = 3


class ImageError(DataError):
    """An image cannot be decoded, or not within the limits."""


class MaskError(DataError):
    """A mask cannot be understood as class ids."""


class PairingError(DataError):
    """Images and masks do not match up."""


class LabelsError(DataError):
    """The description of the classes is wrong."""


class ModelFileError(DataError):
    """A model folder is incomplete, altered or of an unknown version."""


class ResourceError(PixelwiseError):
    """Memory, disk or time ran out."""

    exit_code = 4


class OutOfMemoryError(ResourceError):
    """An image or a batch does not fit the memory of this machine."""


class DivergedError(ResourceError):
    """Training met NaN or infinity several times in a row."""


class Interrupted(PixelwiseError):  # noqa: N818 - a request, not a fault
    """The work was stopped on request; the same command goes on where it stopped."""

    exit_code = 130


@contextmanager
def memory_respected(where: object, do: str) -> Iterator[None]:
    """Turn what numpy, torch and its devices raise without memory into an `OutOfMemoryError`.

    Args:
        where: what the message is about.
        do: what would help.

    Raises:
        OutOfMemoryError: in place of theirs.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = " ".join(str(error).split())
        # torch has a class for its devices, and for the processor nothing but words.
        if not isinstance(error, MemoryError) and not _SHORT.search(f"{type(error).__name__} {said}"):
            raise
        raise OutOfMemoryError(where, expected="enough memory", found=said[:160] or "too little", do=do) from error


_SHORT = re.compile(r"OutOfMemory|out of memory|not enough memory|can't allocate memory|Cannot allocate memory")


def renamed(old: str, new: str) -> property:
    """Return a property that answers an old attribute name with the new attribute, and warns that it is deprecated."""

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
