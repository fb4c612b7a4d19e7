"""Checks on masks: unknown or interpolated ids, palettes converted to grey, missing annotations, specks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from pixelwise.checking.findings import Finding, image_finding, join_names, plural
from pixelwise.checking.inspection import Inspection, UnknownIds
from pixelwise.checking.regions import SPECK, Column
from pixelwise.checking.survey import Survey
from pixelwise.formats.voc import voc_colour
from pixelwise.imageio.masks import advise_on_negative_ids
from pixelwise.labels import Colour

_KEY = "data.mask_values"
_LISTED = "listed from the masks"
_EXPORT = "Export the masks again with their palette"
_NO_SMOOTHING = (
    "Export the masks again without smoothing; resize them by nearest neighbour only, without JPEG in between"
)
# PASCAL VOC's id of ignored pixels, and the grey level of its colour, (224, 224, 192).
_VOC_IGNORED, _VOC_IGNORED_GREY = 255, 220
_VOC_COLOURS = tuple(voc_colour(k) for k in range(22))
_THIN_SHARE, _MIN_BLENDED_IDS = 0.8, 3
# Intact masks of CamVid, COCO and the synthetic scenes are far below these limits; many exceed them once resized or as JPEG.
_LINES_SHARE, _LINES_BETWEEN = 0.7, 0.2
_SPECKS_SHARE, _SPECKS_BETWEEN = 0.7, 0.3
_MIN_REGIONS, _REGIONS_PER_IMAGE = 50, 5
_EMPTY_SHARE, _MIN_MASKS = 0.1, 10
_SPECKS = 0.01  # of the regions


def unknown_ids(survey: Survey) -> Iterator[Finding]:
    """Find ids that the labels do not define, with their pixels and masks, and their likely cause."""
    images = [image for image in survey.inspections if image.unknown is not None]
    unknown = [image.unknown for image in images if image.unknown is not None]
    if not images:
        return
    pixels: Counter[int] = Counter()
    masks: Counter[int] = Counter()
    for ids in unknown:
        pixels.update(dict(ids.ids))
        masks.update(id_ for id_, _ in ids.ids)
    order = sorted(pixels, key=lambda id_: (-pixels[id_], id_))
    counts = [f"{id_} in {plural(masks[id_], 'mask', 'masks')} ({pixels[id_]:,} pixels)" for id_ in order]
    what = (
        f"{plural(len(images), 'mask holds', 'masks hold')} ids that the labels do not define: {join_names(counts, 4)}"
    )
    why, fix = _explain(survey, order, unknown)
    error = images[0].error
    if error is not None:
        why = f"{why} In {error.where}: expected {error.expected}, found {error.found}."
        fix = fix or error.do
    severity = "warning" if survey.skips_unusable else "error"
    what += "; left out by skip_bad" if survey.skips_unusable else ""
    yield image_finding(survey, "unknown-ids", severity, images, what, why, fix, of=len(survey.inspections), masks=True)


def _explain(survey: Survey, ids: list[int], unknown: list[UnknownIds]) -> tuple[str, str]:
    """Return cause and fix of unknown ids: a palette converted to grey, anti-aliased edges, ids that begin with 1."""
    labels = survey.labels
    if min(ids) < 0:
        known = next(iter(survey.datasets.values())).rule.values or {id_: id_ for id_ in labels.ids}
        return "Negative ids usually mark pixels without a label.", advise_on_negative_ids(ids, known, labels)
    greys, unique = _grey_levels(ids, labels.colours, labels.num_classes)
    if greys:
        class_ids = dict(enumerate(labels.ids))
        if labels.ignore_ids:
            class_ids.setdefault(_VOC_IGNORED, labels.ignore_ids[0])
        pairs = ", ".join(f"{grey}: {class_ids[k]}" for grey, k in sorted(greys.items()) if k in class_ids)
        why = "They are the grey levels of palette colours: the masks were converted to grey, so ids became brightness."
        fix = (
            f"{_EXPORT}; or set --set '{_KEY}={{{pairs}}}'."
            if unique
            else f"{_EXPORT}: two classes have the same grey."
        )
        return why, fix
    most = max(len(mask.ids) + mask.others for mask in unknown)
    thin, total = sum(mask.thin_pixels for mask in unknown), sum(mask.pixels for mask in unknown)
    if most >= _MIN_BLENDED_IDS and thin > _THIN_SHARE * total:
        why = f"{100 * thin / total:.0f} % of them are in lines one pixel wide, as caused by anti-aliasing, resizing or JPEG."
        fix = f"{_NO_SMOOTHING}."
        if labels.num_classes == 2:
            fix += f" Two classes can be recovered by --set '{_KEY}={{threshold: 128}}'."
        return why, fix
    from_one = not survey.image_counts()[0] and all(mask.lowest > 0 for mask in unknown)
    if from_one and ids == [labels.num_classes] and labels.ids == tuple(range(labels.num_classes)):
        names = ", ".join(f"{k + 1}: {name}" for k, name in enumerate(labels.names))
        return "The ids begin with 1.", f"Write names: {{{names}}} in labels.yaml."
    return "Training stops at the first of them.", ""


def _grey_levels(
    ids: Iterable[int], colours: tuple[Colour, ...], count: int | None = None
) -> tuple[dict[int, int], bool]:
    """Return the class of each id if all are grey levels of the labels' colours or of PASCAL VOC's, else an empty mapping.

    Also return whether each grey level belongs to a single class among the first `count`, or up to the last one found if
    `count` is None: VOC's aeroplane and potted plant are both 38.
    """
    for palette, ignored in ((colours, frozenset[int]()), (_VOC_COLOURS, frozenset({_VOC_IGNORED_GREY}))):
        required = set(ids) - {0, 255} - ignored
        greys = {_grey(colour): k for k, colour in reversed(list(enumerate(palette)))}
        if len(required) >= 2 and required <= set(greys):
            found = {id_: greys[id_] for id_ in {0} & set(greys) | required}
            candidates = palette[: max(found.values()) + 1 if count is None else count]
            unique = all(found.get(_grey(colour), k) == k for k, colour in enumerate(candidates))
            return found | dict.fromkeys(ignored & set(ids), _VOC_IGNORED), unique
    return {}, False


def _grey(colour: Colour) -> int:
    """Convert a colour to grey (ITU-R BT.601, rounded as in Pillow)."""
    return (colour[0] * 19595 + colour[1] * 38470 + colour[2] * 7471 + 0x8000) >> 16


def grey_palette(survey: Survey) -> Iterator[Finding]:
    """Find classes, listed from the masks, whose ids are the grey levels of a palette."""
    labels = survey.labels
    if survey.splits.description.get("labels") != _LISTED:
        return
    greys, unique = _grey_levels(labels.ids, ())
    if greys and set(labels.ids) <= set(greys):
        pairs = ", ".join(f"{grey}: {greys[grey]}" for grey in sorted(greys))
        what = f"the ids {join_names([str(id_) for id_ in labels.ids])} are the grey levels of palette colours"
        why = "The masks were converted to grey, so ids became brightness: VOC's class 1, for example, is 38 here."
        fix = f"{_EXPORT}: two classes have the same grey."
        if unique:
            fix = f"{_EXPORT}; or set --set '{_KEY}={{{pairs}}}', and name the classes in a labels.yaml."
        count = labels.num_classes
        yield Finding("grey-palette", "warning", what, (), count, count, why, fix)


def blended_ids(survey: Survey) -> Iterator[Finding]:
    """Find classes that occur only along edges between two others, with an id between theirs.

    Resizing, smoothing and JPEG interpolate ids as if they were brightness: between 0 and 2 lies 1, which may be a valid
    id. Such a class either consists of lines of one pixel, or mostly of specks.
    """
    labels, table, images = survey.labels, survey.table()[:-1], survey.image_counts()[:-1]
    pixels, regions, lines = table[:, Column.PIXELS], table[:, Column.REGIONS], table[:, Column.LINES]
    between = table[:, Column.BETWEEN]
    as_lines = (lines > _LINES_SHARE * pixels) & (between > _LINES_BETWEEN * pixels)
    as_specks = (table[:, Column.SPECKS] > _SPECKS_SHARE * regions) & (between > _SPECKS_BETWEEN * lines)
    frequent = regions >= np.maximum(_MIN_REGIONS, _REGIONS_PER_IMAGE * images)
    found = np.flatnonzero((as_lines | as_specks) & frequent).tolist()
    if not found:
        return
    found.sort(key=lambda k: -int(lines[k]))
    affected = [image for image in survey.usable if image.classes & set(found)]
    names = [f"{labels.names[k]} (id {labels.ids[k]}, {int(lines[k]):,} pixels)" for k in found]
    what = f"{plural(len(found), 'class occurs', 'classes occur')} along edges of others only, as interpolation of ids"
    what += f" produces: {join_names(names, 4)}"
    share = min(100 * int(between[found].sum()) / int(lines[found].sum()), 100)
    why = f"{share:.0f} % of these thin pixels are between a lower and a higher id in their row: averages, not objects."
    why += " The model would learn a false rim around every object."
    yield image_finding(survey, "blended-ids", "warning", affected, what, why, f"{_NO_SMOOTHING}.", masks=True)


def ignored_masks(survey: Survey) -> Iterator[Finding]:
    """Find masks in which every pixel is ignored."""
    ignored = [image for image in survey.usable if image.classes == {survey.labels.num_classes}]
    if ignored:
        what = f"{plural(len(ignored), 'mask is', 'masks are')} ignored in every pixel"
        why = "Such images contribute neither to training nor to scores."
        fix = "Annotate the masks, remove the images, or correct ignore_index in labels.yaml."
        yield image_finding(survey, "ignored-masks", "warning", ignored, what, why, fix, masks=True)


def forgotten_masks(survey: Survey) -> Iterator[Finding]:
    """Find masks that hold id 0 only, as before annotation, if nearly all others in their folder hold more."""
    if 0 not in survey.labels.ids:
        return
    ground = survey.labels.ids.index(0)
    folders: dict[str, list[Inspection]] = {}
    for image in survey.usable:
        if image.classes:
            folders.setdefault(str(survey.record(image).image.parent), []).append(image)
    forgotten, examined = [], 0
    for images in folders.values():
        empty = [image for image in images if image.classes - {survey.labels.num_classes} == {ground}]
        if len(images) >= _MIN_MASKS and empty and len(empty) <= _EMPTY_SHARE * len(images):
            forgotten += empty
            examined += len(images)
    if forgotten:
        what = f"{plural(len(forgotten), 'mask shows', 'masks show')} only {survey.labels.names[ground]!r}; the other"
        what += f" {examined - len(forgotten)} in the same folders show more"
        why = "They may be correct, but so few are probably images that were never annotated: the model learns to miss objects."
        fix = "Inspect them; annotate what is missing, or remove them."
        yield image_finding(survey, "forgotten-masks", "warning", forgotten, what, why, fix, of=examined, masks=True)


def specks(survey: Survey) -> Iterator[Finding]:
    """Find regions of under 5 pixels: annotation slips, conversion artefacts, or nearly occluded objects."""
    table = survey.table()[:-1]
    total = int(table[:, Column.SPECKS].sum())
    if total < _SPECKS * table[:, Column.REGIONS].sum() or not total:
        return
    ignored = survey.labels.num_classes
    images = [
        image for image in survey.usable if image.table[image.table[:, Column.CLASS] < ignored, Column.SPECKS].any()
    ]
    images.sort(key=lambda image: -int(image.table[:, Column.SPECKS].sum()))
    by_class = [k for k in np.argsort(-table[:, Column.SPECKS], kind="stable").tolist() if table[k, Column.SPECKS]]
    counts = [f"{survey.labels.names[k]} {table[k, Column.SPECKS]:,}" for k in by_class]
    what = f"{total:,} {'speck' if total == 1 else 'specks'} of under {SPECK} pixels in"
    what += f" {len(images)} of {plural(len(survey.usable), 'mask', 'masks')}: {join_names(counts, 4)}"
    why = "Annotation slips, conversion artefacts, or nearly occluded objects: each is learned and counts as an object."
    fix = "Inspect the first of these masks. Remove the specks if they show no objects."
    yield image_finding(survey, "specks", "notice", images, what, why, fix, masks=True)


def mask_notices(survey: Survey) -> Iterator[Finding]:
    """Report the decisions made while masks were read, each once."""
    notices: dict[str, list[Inspection]] = {}
    for image in survey.usable:
        for notice in image.notices:
            notices.setdefault(notice, []).append(image)
    for notice, images in notices.items():
        from_shapes = survey.record(images[0]).source is not None  # which have no mask values
        fix = (
            "Inspect some of them; if they fit, there is nothing to do."
            if from_shapes
            else f"Set {_KEY} if this is not intended."
        )
        why = "This was decided automatically."
        yield image_finding(survey, "decided-by-masks", "notice", images, notice, why, fix, masks=True)


CHECKS = (unknown_ids, grey_palette, ignored_masks, blended_ids, forgotten_masks, specks, mask_notices)
