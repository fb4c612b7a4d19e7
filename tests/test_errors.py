import inspect
import pickle
import re

import pytest

from pixelwise import errors
from pixelwise.errors import (
    DataError,
    DivergedError,
    MaskError,
    OutOfMemoryError,
    PixelwiseError,
    ResourceError,
    UsageError,
    convert_memory_errors,
)

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


def test_the_form_of_messages() -> None:
    error = MaskError(
        "masks/0412.png",
        expected="class ids 0–4",
        found="17 in 212 pixels",
        do="Add class 17 to labels.yaml, or set ignore_index.",
    )
    assert str(error) == (
        "masks/0412.png: expected class ids 0–4, found 17 in 212 pixels. "
        "Add class 17 to labels.yaml, or set ignore_index."
    )
    assert (error.where, error.expected, error.found) == ("masks/0412.png", "class ids 0–4", "17 in 212 pixels")


def test_all_four_fields_are_required() -> None:
    with pytest.raises(TypeError):
        PixelwiseError("here")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        PixelwiseError("here", "this", "that", "do")  # type: ignore[misc]


def drawn_tree() -> dict[str, tuple[str, int]]:
    """Parse the tree in the module docstring: name → (parent, exit code)."""
    tree: dict[str, tuple[str, int]] = {}
    above: list[tuple[int, str, int]] = []
    for line in (errors.__doc__ or "").splitlines():
        if not (found := re.match(r"([ │├└─]+)([A-Z]\w+)\s+(?:exit code )?(\d+)?", line)):
            continue
        depth, name = len(found[1]), found[2]
        while above and above[-1][0] >= depth:
            above.pop()
        code = int(found[3]) if found[3] else above[-1][2]
        tree[name] = (above[-1][1] if above else "Exception", code)
        above.append((depth, name, code))
    return tree


def test_the_docstring_lists_all_exceptions() -> None:
    assert drawn_tree() == {kind.__name__: (kind.__bases__[0].__name__, kind.exit_code) for kind in ALL}
    assert len(ALL) >= 13


def test_exit_codes() -> None:
    assert [k.exit_code for k in (PixelwiseError, UsageError, DataError, ResourceError)] == [1, 2, 3, 4]
    assert errors.Interrupted.exit_code == 130
    assert issubclass(DivergedError, ResourceError)


def test_the_message_of_an_interruption() -> None:
    error = errors.Interrupted("run", found="checkpoint saved")
    assert str(error) == "run: interrupted; checkpoint saved. Run the same command again to resume."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("kind", ALL)
def test_errors_can_be_pickled(kind: type[PixelwiseError]) -> None:
    error = kind("a.png", expected="this", found="that", do="Fix it.")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (str(back), back.where, back.do) == (str(error), "a.png", "Fix it.")


class OutOfMemoryOfTorchError(RuntimeError):
    """Stand-in for the exception of torch."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 15.2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        OutOfMemoryOfTorchError("CUDA out of memory. Tried to allocate 2 GiB."),
    ],
)
def test_out_of_memory_errors_are_converted(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError) as caught, convert_memory_errors("a.png", "Cut it."):
        raise error
    assert str(caught.value) == f"a.png: expected enough memory, found {error}. Cut it."
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), DataError("a", expected="b", found="c", do="D.")])
def test_other_errors_are_not_converted(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, convert_memory_errors("a.png", "Cut it."):
        raise error
    assert caught.value is error
