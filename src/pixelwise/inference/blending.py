"""The weighted mean of overlapping tiles, in bounded memory.

Comes in: windows row by row, and the probabilities (K, h, w) of each. Goes out: bands of finished rows, top to bottom, each
as soon as no later tile touches it; only one row of tiles is held at a time. Knows nothing of models or classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from pixelwise.tiles import Window


def gaussian(tile: tuple[int, int]) -> Tensor:
    """Give weights (H, W) float32 that fall from 1 at a tile's centre: its border sees the least of its surroundings.

    A Gaussian of sigma = tile / 8 per axis (Isensee et al.: nnU-Net, Nature Methods 2021); positive everywhere.
    """
    rows, columns = (_bell(size) for size in tile)
    return rows[:, None] * columns[None, :]


def _bell(size: int) -> Tensor:
    place = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    return torch.exp(-0.5 * (place / (size / 8)).square())


def blend(windows: Sequence[Window], tiles: Iterable[Tensor], tile: tuple[int, int]) -> Iterator[Tensor]:
    """Average the probabilities of overlapping tiles, weighted by `gaussian`.

    Probabilities, not logits: a tile that is very sure of itself does not outvote its neighbours beyond its weight.

    Args:
        windows: row by row, as `pixelwise.tiles.windows` gives them.
        tiles: for each window its probabilities (K, h, w) float32, in the same order.
        tile: largest (h, w) of a window.

    Yields:
        Bands (K, rows, W) that follow each other from the first row to the last.
    """
    source = iter(tiles)
    weights = gaussian(tile)
    width = max(window.stop[1] for window in windows)
    rows = [list(row) for _, row in itertools.groupby(windows, lambda window: window.start[0])]
    total, share = torch.empty(0), torch.empty(0)
    for row, following in itertools.pairwise([*rows, None]):
        assert row is not None
        top, bottom = row[0].start[0], row[0].stop[0]
        for window in row:
            probabilities = next(source)
            if not total.numel():
                weights = weights.to(probabilities.device)
                total = probabilities.new_zeros(probabilities.shape[0], 0, width)
                share = probabilities.new_zeros(0, width)
            # The buffer begins at `top`; it grows to the height of this row of tiles.
            total, share = _grown(total, bottom - top), _grown(share, bottom - top)
            weight = weights[: window.shape[0], : window.shape[1]]
            columns = window.slices[1]
            total[:, :, columns] += probabilities * weight
            share[:, columns] += weight
        done = (bottom if following is None else following[0].start[0]) - top
        yield total[:, :done] / share[:done]
        total, share = total[:, done:], share[done:]


def _grown(buffer: Tensor, rows: int) -> Tensor:
    """Append rows of zeros to (…, rows, W) until there are `rows`."""
    missing = rows - buffer.shape[-2]
    if missing <= 0:
        return buffer
    return torch.cat([buffer, buffer.new_zeros(*buffer.shape[:-2], missing, buffer.shape[-1])], dim=-2)
