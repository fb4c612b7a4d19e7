"""pixelwise: the ways of all modules of this package."""

from __future__ import annotations

from conformance.adapters import Ways
from conformance.adapters.pixelwise import files, geometry, losses, networks, runs, scores

WAYS: Ways = {**scores.WAYS, **losses.WAYS, **files.WAYS, **geometry.WAYS, **networks.WAYS, **runs.WAYS}
