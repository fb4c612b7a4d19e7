"""Search for images that are cropped copies of others by up to a tenth of each side, also turned or mirrored.

Cropping moves the pixels, which changes high frequencies most. So the candidate of each image is the one whose lowest
frequencies are most similar. A cosine series can be evaluated anywhere, hence the signature of a crop follows from the
signature of the image by one small matrix per axis. These matrices, one per pair of margins, are tried in turn along both
axes. The lowest 9 × 9 frequencies are compared, which do not depend on frequencies that the signature lacks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.image_signature import COSINES, FREQUENCIES, SIDE
from pixelwise.checking.signature_search import (
    Nearest,
    Vectors,
    block_pairs,
    correlations,
    frequencies,
    largest_correlation,
    turn,
)

_COARSE, _COMPARED = 6, 9  # frequencies along each axis
_STEP, _LARGEST = 1 / 80, 0.1  # margins, as shares of a side
_SWEEPS = 2
_PAIRS = 256  # compared at once


def nearest_crops(vectors: Vectors, splits: Sequence[str], reach: float, limit: float, known: Nearest) -> Nearest:
    """Find images of other splits of which an image is a cropped copy, or which are cropped copies of it.

    Args:
        vectors: (N, 143) of length 1.
        splits: the split of each image; images of one split are adjacent.
        reach: greatest distance of the lowest frequencies.
        limit: greatest distance of a crop.
        known: images with a neighbour already, for which none is searched.
    """
    candidates = _candidates(vectors, splits, reach)
    images = np.flatnonzero((candidates >= 0) & (known.neighbour < 0))
    crops = Nearest.of(len(vectors))
    for start in range(0, len(images), _PAIRS):
        some = images[start : start + _PAIRS]
        one, other = vectors[some], vectors[candidates[some]]
        symmetry = correlations(_coarse(one), _coarse(other)).argmax(axis=1)
        other = turn(other, symmetry)
        distance = 1 - np.maximum(crop_correlations(one, other), crop_correlations(other, one))
        near = distance <= limit
        crops.update(some[near], candidates[some[near]], np.maximum(distance[near], 0))
    return crops


def crop_correlations(images: Vectors, others: Vectors) -> NDArray[np.float32]:
    """Compute the correlation (N,) of each other image with the most similar crop of an image; vectors are (N, 143)."""
    blocks, targets = _blocks(images), _blocks(others)[:, :_COMPARED, :_COMPARED]
    targets = targets / np.maximum(np.linalg.norm(targets, axis=(1, 2), keepdims=True), 1e-12)
    every = _CROPS.reshape(-1, FREQUENCIES)
    rows = columns = np.zeros(len(images), np.int64)
    best = np.empty(0, np.float32)
    for _ in range(_SWEEPS):
        cropped = every @ (blocks @ _CROPS[columns].transpose(0, 2, 1))
        rows, _ = _best(cropped.reshape(len(images), -1, _COMPARED, _COMPARED), targets)
        cropped = (_CROPS[rows] @ blocks) @ every.T
        columns, best = _best(cropped.reshape(len(images), _COMPARED, -1, _COMPARED).swapaxes(1, 2), targets)
    return best


def _best(cropped: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which of the crops (N, M, 9, 9) is most similar to the target (N, 9, 9), and their correlation."""
    cropped[:, :, 0, 0] = 0  # the mean
    norms = np.sqrt(np.einsum("nmuv,nmuv->nm", cropped, cropped))
    similar = np.einsum("nmuv,nuv->nm", cropped, targets) / np.maximum(norms, 1e-12)
    return similar.argmax(axis=1), similar.max(axis=1)


def _candidates(vectors: Vectors, splits: Sequence[str], reach: float) -> NDArray[np.int64]:
    """Return the image of another split with the most similar low frequencies within reach, -1 if there is none."""
    coarse = _coarse(vectors)
    found = Nearest.of(len(vectors))
    for rows, columns in block_pairs(splits):
        if splits[rows.start] == splits[columns.start]:
            continue
        similar = largest_correlation(coarse[rows], coarse[columns], _IS_COARSE)
        for own, others, table in ((rows, columns, similar), (columns, rows, similar.T)):
            distance = 1 - table.max(axis=1)
            nearer = np.flatnonzero(distance < np.minimum(found.distance[own], reach))  # soon few
            found.update(own.start + nearer, others.start + table[nearer].argmax(axis=1), distance[nearer])
    return found.neighbour


def _coarse(vectors: Vectors) -> Vectors:
    """Keep the lowest frequencies of vectors (N, 143), scaled to length 1."""
    kept = np.where(_IS_COARSE, vectors, np.float32(0))
    return kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)


def _blocks(vectors: Vectors) -> NDArray[np.float32]:
    """Return the coefficients (N, 12, 12) of vectors (N, 143), with a mean of 0."""
    return np.pad(vectors, ((0, 0), (1, 0))).reshape(-1, FREQUENCIES, FREQUENCIES)


def _crop_matrices() -> NDArray[np.float32]:
    """Compute the matrices (M, 9, 12) that crop along one axis: coefficients of the whole to those of the part."""
    margins = np.arange(0, _LARGEST + _STEP / 2, _STEP)
    frequency = np.arange(FREQUENCIES)
    scale = np.sqrt(np.where(frequency > 0, 2, 1) / SIDE)
    place = (np.arange(SIDE) + 0.5) / SIDE
    matrices = []
    for first, last in itertools.product(margins, margins):
        if first + last <= _LARGEST + _STEP / 2:
            inside = first + (1 - first - last) * place
            matrices.append(COSINES[:_COMPARED] @ (scale * np.cos(np.pi * frequency * inside[:, None])))
    return np.array(matrices, np.float32)


_IS_COARSE = frequencies().max(axis=0) < _COARSE
_CROPS = _crop_matrices()
