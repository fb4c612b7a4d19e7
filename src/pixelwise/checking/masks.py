"""Checks on masks: ids that mean nothing, ids that nobody drew, masks without labels, specks of the brush.

Comes in: a `Survey`. Goes out: findings. Knows nothing of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from pixelwise.checking.findings import Finding, listed, some
from pixelwise.checking.inspection import Seen, Unknown
from pixelwise.checking.regions import SPECK, Column
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import tell
from pixelwise.labels import Colour

_KEY = "data.mask_values"
_LISTED = "listed from the masks"
_AGAIN = "Export the masks again with their palette"
# PASCAL VOC's id for what counts in nothing, and the grey level of its colour, (224, 224, 192).
_VOID, _GREY_VOID = 255, 220
_SOFT = 0.8
_SOFT_IDS = 3
# Of the masks as they are, no class of CamVid, COCO and the drawn scenes comes near; resized or saved as JPEG, many pass.
_ALONG, _BLENDED = 0.7, 0.2
_CRUMBS, _BETWEEN = 0.7, 0.3
_FEWEST_REGIONS, _MANY = 50, 5
_FORGOTTEN, _FEWEST = 0.1, 10
_SPECKS = 0.01  # of the regions


def unknown_ids(survey: Survey) -> Iterator[Finding]:
    """Find ids that the labels do not name: how many pixels in how many masks, and what they may be."""
    seen = [one for one in survey.seen if one.unknown is not None]
    if not seen:
        return
    pixels: dict[int, int] = {}
    masks: dict[int, int] = {}
    for one in seen:
        for id_, count in one.unknown.ids if one.unknown is not None else ():
            pixels[id_] = pixels.get(id_, 0) + count
            masks[id_] = masks.get(id_, 0) + 1
    order = sorted(pixels, key=lambda id_: (-pixels[id_], id_))
    said = [f"{id_} in {some(masks[id_], 'mask', 'masks')} ({pixels[id_]:,} pixels)" for id_ in order]
    what = f"{some(len(seen), 'mask holds', 'masks hold')} ids that the labels do not name: {listed(said, 4)}"
    first = seen[0].error
    why, fix = _meaning(survey, order, [one.unknown for one in seen if one.unknown is not None])
    if first is not None:
        why = f"{why} In {first.where}: expected {first.expected}, found {first.found}."
        fix = fix or first.do
    severity = "warning" if survey.leaves_out else "error"
    what += "; left out by skip_bad" if survey.leaves_out else ""
    yield tell(survey, "unknown-ids", severity, seen, what, why, fix, of=len(survey.seen), masks=True)


def _meaning(survey: Survey, ids: list[int], unknown: list[Unknown]) -> tuple[str, str]:
    """Guess what unknown ids are: greys of a palette, soft edges, the ids of a list that begins with 1."""
    labels = survey.labels
    greys, clear = _greys_of(ids, labels.colours, labels.num_classes)
    if greys:
        known = dict(enumerate(labels.ids))
        if labels.ignore_ids:
            known.setdefault(_VOID, labels.ignore_ids[0])
        pairs = ", ".join(f"{grey}: {known[k]}" for grey, k in sorted(greys.items()) if k in known)
        why = "They are the grey levels of a palette's colours: the masks were converted to grey, and ids became brightness."
        fix = f"{_AGAIN}; or say --set '{_KEY}={{{pairs}}}'." if clear else f"{_AGAIN}: two classes have one grey."
        return why, fix
    several = max(len(one.ids) + one.others for one in unknown)
    lines, total = sum(one.lines for one in unknown), sum(one.pixels for one in unknown)
    if several >= _SOFT_IDS and lines > _SOFT * total:
        why = f"{100 * lines / total:.0f} % of them lie in lines of a pixel, as soft edges (anti-aliasing, resizing, JPEG) make them."
        fix = "Export the masks again without smoothing; scale them by nearest neighbour only, and save no JPEG in between"
        return (
            why,
            f"{fix}. Two classes come back by --set '{_KEY}={{threshold: 128}}'."
            if labels.num_classes == 2
            else f"{fix}.",
        )
    from_one = not survey.images()[0] and all(one.least > 0 for one in unknown)
    if from_one and ids == [labels.num_classes] and labels.ids == tuple(range(labels.num_classes)):
        names = ", ".join(f"{k + 1}: {name}" for k, name in enumerate(labels.names))
        return "The ids begin with 1.", f"Write names: {{{names}}} in labels.yaml."
    return "Training stops at the first of them.", ""


def _greys_of(ids: Iterable[int], colours: tuple[Colour, ...], count: int | None = None) -> tuple[dict[int, int], bool]:
    """Give the class of each id, if all are grey levels of the labels' colours, or of PASCAL VOC's; else nothing.

    Also whether each is the grey of one class alone, among the first `count`, or up to the last one found where that is not
    known: VOC's aeroplane and potted plant are both 38.
    """
    for palette, void in ((colours, frozenset[int]()), (_voc_colours(), frozenset({_GREY_VOID}))):
        wanted = set(ids) - {0, 255} - void
        greys = {_grey(colour): k for k, colour in reversed(list(enumerate(palette)))}
        if len(wanted) >= 2 and wanted <= set(greys):
            found = {id_: greys[id_] for id_ in {0} & set(greys) | wanted}
            looked = palette[: max(found.values()) + 1 if count is None else count]
            clear = all(found.get(_grey(colour), k) == k for k, colour in enumerate(looked))
            return found | dict.fromkeys(void & set(ids), _VOID), clear
    return {}, False


def _grey(colour: Colour) -> int:
    """Give what conversion to grey makes of a colour (ITU-R BT.601, as Pillow rounds it)."""
    return (colour[0] * 19595 + colour[1] * 38470 + colour[2] * 7471 + 0x8000) >> 16


@lru_cache(maxsize=1)
def _voc_colours() -> tuple[Colour, ...]:
    """Give the colours of PASCAL VOC's palette: bit k of the id goes, three by three, to the high bits of r, g and b."""
    colours = []
    for id_ in range(22):
        bands = [0, 0, 0]
        for bit in range(8):
            bands[bit % 3] |= (id_ >> bit & 1) << (7 - bit // 3)
        colours.append((bands[0], bands[1], bands[2]))
    return tuple(colours)


def grey_palette(survey: Survey) -> Iterator[Finding]:
    """Find classes listed from masks whose ids are the greys of a palette."""
    labels = survey.labels
    if survey.splits.description.get("labels") != _LISTED:
        return
    greys, clear = _greys_of(labels.ids, ())
    if greys and set(labels.ids) <= set(greys):
        pairs = ", ".join(f"{grey}: {greys[grey]}" for grey in sorted(greys))
        what = f"the ids {listed([str(id_) for id_ in labels.ids])} are the grey levels of a palette's colours"
        why = "The masks were converted to grey once, and ids became brightness: what is class 1 to others is 38 here."
        fix = f"{_AGAIN}: two classes have one grey."
        if clear:
            fix = f"{_AGAIN}; or say --set '{_KEY}={{{pairs}}}', and name the classes in a labels.yaml."
        count = labels.num_classes
        yield Finding("grey-palette", "warning", what, (), count, count, why, fix)


def blended_ids(survey: Survey) -> Iterator[Finding]:
    """Find classes that lie along edges between two others, with an id between theirs: nobody drew them there.

    Resizing, smoothing and JPEG blend ids as if they were brightness: between 0 and 2 lies 1. The labels may well name that
    id. Such a class is either lines of a pixel and nothing else, or crumbles into specks.
    """
    labels, table, images = survey.labels, survey.table()[:-1], survey.images()[:-1]
    pixels, regions, lines = table[:, Column.PIXELS], table[:, Column.REGIONS], table[:, Column.LINES]
    between = table[:, Column.BETWEEN]
    alone = (lines > _ALONG * pixels) & (between > _BLENDED * pixels)
    crumbs = (table[:, Column.SPECKS] > _CRUMBS * regions) & (between > _BETWEEN * lines)
    found = np.flatnonzero((alone | crumbs) & (regions >= np.maximum(_FEWEST_REGIONS, _MANY * images))).tolist()
    if not found:
        return
    found.sort(key=lambda k: -int(lines[k]))
    seen = [one for one in survey.good if set(found) & set(one.table[:, Column.CLASS].tolist())]
    names = [f"{labels.names[k]} (id {labels.ids[k]}, {int(lines[k]):,} pixels)" for k in found]
    what = f"{some(len(found), 'class lies', 'classes lie')} along the edges of others, as blending makes ids: {listed(names, 4)}"
    share = min(100 * int(between[found].sum()) / int(lines[found].sum()), 100)
    why = f"Of these pixels, in lines and specks, {share:.0f} % stand in their row between a lower and a higher id: no thing is"
    why += " there, an average is. The model learns a false rim around everything."
    fix = "Export the masks again without smoothing; scale them by nearest neighbour only, and save no JPEG in between."
    yield tell(survey, "blended-ids", "warning", seen, what, why, fix, masks=True)


def ignored_masks(survey: Survey) -> Iterator[Finding]:
    """Find masks in which no pixel counts."""
    empty = [
        one for one in survey.good if len(one.table) and int(one.table[0, Column.CLASS]) == survey.labels.num_classes
    ]
    if empty:
        what = f"{some(len(empty), 'mask is', 'masks are')} ignored in every pixel"
        why = "Nothing can be learned from these images, nor scored on them."
        fix = "Draw the masks, take the images out, or correct ignore_index in labels.yaml."
        yield tell(survey, "ignored-masks", "warning", empty, what, why, fix, masks=True)


def forgotten_masks(survey: Survey) -> Iterator[Finding]:
    """Find masks that hold id 0 alone, as a mask does before anybody draws, where nearly all others in their folder show more."""
    if 0 not in survey.labels.ids:
        return
    ground = survey.labels.ids.index(0)
    folders: dict[str, list[Seen]] = {}
    for one in survey.good:
        if len(one.table):
            folders.setdefault(str(survey.record(one).image.parent), []).append(one)
    forgotten, looked = [], 0
    for own in folders.values():
        bare = [one for one in own if _shows_only(one, ground, survey.labels.num_classes)]
        if len(own) >= _FEWEST and len(bare) <= _FORGOTTEN * len(own):
            forgotten += bare
            looked += len(own) if bare else 0
    if forgotten:
        name = survey.labels.names[ground]
        what = f"{some(len(forgotten), 'mask shows', 'masks show')} nothing but {name!r}; the other {looked - len(forgotten)}"
        what += " in their folders show more"
        why = "They may be right. But so few are more likely images that nobody labelled: the model learns to see nothing there."
        fix = "Look at them; draw what is missing, or take them out."
        yield tell(survey, "forgotten-masks", "warning", forgotten, what, why, fix, of=looked, masks=True)


def _shows_only(one: Seen, ground: int, ignored: int) -> bool:
    return {int(row) for row in one.table[:, Column.CLASS]} - {ignored} == {ground}


def specks(survey: Survey) -> Iterator[Finding]:
    """Find regions of under 5 pixels: slips of the brush, what a rough conversion leaves, or things nearly hidden."""
    table = survey.table()[:-1]
    total = int(table[:, Column.SPECKS].sum())
    ignored = survey.labels.num_classes
    seen = [one for one in survey.good if one.table[one.table[:, Column.CLASS] < ignored, Column.SPECKS].any()]
    if total < _SPECKS * table[:, Column.REGIONS].sum() or not total:
        return
    seen.sort(key=lambda one: -int(one.table[:, Column.SPECKS].sum()))
    by_class = [k for k in np.argsort(-table[:, Column.SPECKS], kind="stable").tolist() if table[k, Column.SPECKS]]
    said = [f"{survey.labels.names[k]} {table[k, Column.SPECKS]:,}" for k in by_class]
    what = f"{total:,} speck{'s' * (total != 1)} of under {SPECK} pixels in {len(seen)} of {some(len(survey.good), 'mask', 'masks')}: {listed(said, 4)}"
    why = (
        "Slips of the brush, crumbs of a conversion, or things nearly hidden: each is learned, and counts as an object."
    )
    fix = "Look at the first of these masks. Where nothing is, paint the specks over; else nothing."
    yield tell(survey, "specks", "notice", seen, what, why, fix, masks=True)


def told_by_masks(survey: Survey) -> Iterator[Finding]:
    """Pass on what was noticed while masks were read, once per notice."""
    where: dict[str, list[Seen]] = {}
    for one in survey.good:
        for notice in one.notices:
            where.setdefault(notice, []).append(one)
    for notice, seen in where.items():
        drawn = survey.record(seen[0]).source is not None  # of shapes, which have no values
        fix = "Look at some; nothing, if they fit." if drawn else f"Set {_KEY} if this is not meant."
        yield tell(survey, "decided-by-masks", "notice", seen, notice, "It was decided for you.", fix, masks=True)


CHECKS = (
    unknown_ids,
    grey_palette,
    ignored_masks,
    blended_ids,
    forgotten_masks,
    specks,
    told_by_masks,
)
