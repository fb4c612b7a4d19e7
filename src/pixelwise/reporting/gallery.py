"""The sections of the report that show images with ground truth and prediction, and possible annotation errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pixelwise.errors import PixelwiseError
from pixelwise.evaluation import Suspect
from pixelwise.labels import Labels
from pixelwise.reporting.rendering import Section
from pixelwise.reporting.results import Results, area_error
from pixelwise.reporting.thumbnails import Fetch, View, crop, view, worst_slice

EACH = 4
# Bytes of all panels together, before base64 adds a third.
_BUDGET = 2_400_000
_LARGEST_PANEL = 60_000
_MOST_SUSPECTS, _MOST_LISTED = 12, 50
_GROUPS = {
    "all": ("All images", "Worst first."),
    "worst": ("Worst", "Lowest mIoU."),
    "median": ("Typical", "Closest to the median mIoU."),
    "best": ("Best", "Highest mIoU."),
    "area": (
        "Largest area error",
        "Of the other images, those in which the areas of the classes deviate most from the ground truth.",
    ),
}


def choose(results: Results) -> dict[str, list[str]]:
    """Choose the images to show, each at most once.

    Returns:
        Ids by group: "worst", "median" and "best" by the mIoU of the image alone, and "area" by the largest area error,
        about 4 of each; or all ids in the group "all" if there are at most 4. Empty groups are omitted.
    """
    scored = [image for image in results.evaluation.images if image.miou is not None]
    images = [(image.miou, image.id, area_error(image) or 0.0) for image in scored]
    ranked = [id for _, id, _ in sorted(images)]
    if len(ranked) <= EACH:
        return {"all": ranked} if ranked else {}
    each = min(EACH, max(len(ranked) // 4, 1))
    middle = len(ranked) // 2
    candidates = {
        "worst": ranked,
        "best": ranked[::-1],
        "median": [ranked[i] for i in sorted(range(len(ranked)), key=lambda i: abs(i - middle))],
        "area": [id for error, id in sorted((-error, id) for _, id, error in images) if error],
    }
    taken: set[str] = set()
    chosen: dict[str, list[str]] = {}
    for group, ids in candidates.items():
        chosen[group] = [id for id in ids if id not in taken][:each]
        taken |= set(chosen[group])
    return {group: chosen[group] for group in ("worst", "median", "best", "area") if chosen[group]}


def image_sections(results: Results, labels: Labels, fetch: Fetch | None) -> list[Section | None]:
    """Show the chosen images and the suspects; without `fetch`, only list the suspects."""
    suspects = results.evaluation.tables.suspects or ()
    if fetch is None:
        return [suspects_section(suspects, {})]
    chosen = choose(results)
    views, suspect_views = fetch_views(chosen, suspects, labels, fetch)
    images = {image.id: image for image in results.evaluation.images}
    groups = [
        (*_GROUPS[group], [(images[id], area_error(images[id]), views[id]) for id in ids])
        for group, ids in chosen.items()
    ]
    section = Section("images", "Images", {"groups": groups, "labels": labels}) if groups else None
    return [section, suspects_section(suspects, suspect_views)]


def fetch_views(
    chosen: Mapping[str, Sequence[str]], suspects: Sequence[Suspect], labels: Labels, fetch: Fetch
) -> tuple[dict[str, View], dict[int, View]]:
    """Fetch each image once, and return the views of the chosen images by id and of the first suspects by index."""
    suspects = suspects[:_MOST_SUSPECTS]
    ids = [id for group in chosen.values() for id in group]
    budget = min(_BUDGET // max(4 * len(ids) + 3 * len(suspects), 1), _LARGEST_PANEL)
    views: dict[str, View] = {}
    suspect_views: dict[int, View] = {}
    for id in dict.fromkeys([*ids, *(suspect.id for suspect in suspects)]):
        of_image = [k for k, suspect in enumerate(suspects) if suspect.id == id]
        try:
            scored, index = worst_slice(fetch(id), labels.ignore_index)
        except PixelwiseError as error:
            views[id] = View(note=str(error))
            suspect_views |= dict.fromkeys(of_image, views[id])
            continue
        if id in ids:
            note = "" if index is None else f"slice {index}, the one with the most errors"
            views[id] = view(scored, labels, budget, note)
        for k in of_image:
            suspect_views[k] = view(crop(scored, suspects[k].box), labels, budget)
    return views, suspect_views


def suspects_section(suspects: Sequence[Suspect], views: Mapping[int, View]) -> Section | None:
    """Show regions that may be annotated wrongly; None if there are none."""
    if not suspects:
        return None
    shown = [(suspects[k], views[k]) for k in sorted(views)]
    return Section(
        "suspects", "Possible annotation errors", {"shown": shown, "listed": suspects[len(shown) : _MOST_LISTED]}
    )
