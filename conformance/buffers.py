"""Measure the largest tensor that a computation creates."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LargestBuffer(TorchDispatchMode):
    """Record the number of values in the largest tensor created."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, list | tuple) else [result]
        self.values = max(
            [self.values, *(t.untyped_storage().nbytes() // t.element_size() for t in results if isinstance(t, Tensor))]
        )
        return result
