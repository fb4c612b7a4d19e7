"""Negative ids in masks whose classes are not described: an error with the mapping that ignores them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from pixelwise.errors import DataError
from pixelwise.formats.reading import read_truth_ids
from pixelwise.formats.records import Record
from pixelwise.imageio.masks import MaskRule, negative_ids


def require_no_negative_ids(ids: Collection[int], records: Sequence[Record], rule: MaskRule) -> None:
    """Raise if ids that were listed from all masks are negative.

    The first mask with one is read again for its pixels.

    Raises:
        MaskError: some are; the mapping in the message holds all `ids`.
    """
    positive = {id_ for id_ in ids if id_ >= 0}
    if len(positive) == len(ids):
        return
    known = {0: 0, 255: 1} if 255 in positive <= {0, 255} else {id_: id_ for id_ in positive}
    for record in records:
        try:
            mask = None if record.mask is None else read_truth_ids(record, replace(rule, binary=False))
        except DataError:
            continue  # raised again when the mask is used
        if record.mask is not None and mask is not None and mask.min() < 0:
            counts = {id_: int(np.count_nonzero(mask == id_)) for id_ in set(ids) - positive}
            raise negative_ids(record.mask, counts, mask.size, known, None)
