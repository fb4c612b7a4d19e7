"""Divide the slices of a DICOM series with several volumes: echoes, points in time, b-values, phases of the heart.

Such slices share positions. They are divided by the first attribute, or pair of attributes, whose values give volumes with the same
positions; the headers are only read for this if positions occur several times.

Source: DICOM PS3.3, C.8.3.1 (MR), C.8.13 (Enhanced MR), C.8.15 (Enhanced CT), C.7.6.16.2 (functional groups).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, combinations

import numpy as np

from pixelwise.imageio.dicom import Slice, read_values

# Word for the name, functional group of enhanced files, attribute.
_ATTRIBUTES = (
    ("echo", "MREchoSequence", "EffectiveEchoTime"),
    ("echo", "", "EchoNumbers"),
    ("time", "FrameContentSequence", "TemporalPositionIndex"),
    ("time", "", "TemporalPositionIdentifier"),
    ("b", "MRDiffusionSequence", "DiffusionBValue"),
    ("phase", "CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ("trigger", "", "TriggerTime"),
    ("type", "MRImageFrameTypeSequence", "FrameType"),
    ("type", "CTImageFrameTypeSequence", "FrameType"),
    ("type", "", "ImageType"),
    ("stack", "FrameContentSequence", "StackID"),
    ("acquisition", "FrameContentSequence", "FrameAcquisitionNumber"),
    ("acquisition", "", "AcquisitionNumber"),
)
_TOLERANCE = 1e-2  # millimetres between slices at one position


def split_phases(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """Divide slices, in order of height, into volumes with the same positions.

    Returns:
        Volumes by what distinguishes them, such as "echo-2"; a single one, "", if positions occur once or nothing divides them.
    """
    whole = {"": list(slices)}
    heights = np.array([each.height for each in slices])
    if len(heights) < 2 or np.diff(heights).min() > _TOLERANCE:
        return whole
    attributes = [(group, name) for _, group, name in _ATTRIBUTES]
    values = {path: read_values(path, attributes) for path in {each.frame.path for each in slices}}
    numbers = range(len(_ATTRIBUTES))
    for chosen in chain(combinations(numbers, 1), combinations(numbers, 2)):
        volumes: dict[str, list[Slice]] = defaultdict(list)
        for each in slices:
            own = values[each.frame.path][each.frame.index]
            volumes["-".join(f"{_ATTRIBUTES[k][0]}-{own[k]}" for k in chosen)].append(each)
        if len(volumes) > 1 and _same_positions(volumes.values()):
            return dict(sorted(volumes.items()))
    return whole


def _same_positions(volumes: Iterable[Sequence[Slice]]) -> bool:
    """Whether volumes have the same positions, each once."""
    heights = [[each.height for each in volume] for volume in volumes]
    if len(Counter(map(len, heights))) > 1:
        return False
    rows = np.array(heights)
    return bool(np.allclose(rows, rows[0], rtol=0, atol=_TOLERANCE) and (np.diff(rows[0]) > _TOLERANCE).all())
