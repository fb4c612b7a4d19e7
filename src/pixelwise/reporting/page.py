"""One file that shows how good predictions are, to be read anywhere and kept for good.

Comes in: the plain form of an evaluation, and where there are any a run folder and a way to fetch images. Goes out:
one HTML file that needs nothing else: no network, no other file, and no script to be read. Knows nothing of models or
of how scores are made.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pixelwise.labels import Labels
from pixelwise.reporting import gallery, learning, mistakes, overview, trust
from pixelwise.reporting import provenance as origins
from pixelwise.reporting.layout import Section
from pixelwise.reporting.markup import Child, Markup, legible, named, shortened, tag
from pixelwise.reporting.numbers import plural
from pixelwise.reporting.runfolder import RunFolder, read_run
from pixelwise.reporting.thumbnails import Fetch
from pixelwise.storage import write_atomic

Plain = Mapping[str, Any]


def write_report(
    path: str | Path,
    scores: Plain,
    *,
    labels: Labels,
    fetch: Fetch | None = None,
    run: str | Path | None = None,
    title: str | None = None,
    environment: Mapping[str, Any] | None = None,
    commands: Sequence[str] | None = None,
) -> None:
    """Write the report of an evaluation as one HTML file.

    Args:
        path: the file, written whole or not at all.
        scores: what `Evaluation.to_dict` gives, with "split", and "model" and "data" where known.
        labels: names and colours of the classes.
        fetch: gives (image (C, *S), truth (*S), prediction (*S)) of an id; called once for each image that is shown.
        run: a run folder; without one the report has no training, data or configuration.
        title: of the page; the model's name where not given.
        environment: versions and machine, by name.
        commands: what to type to get the same again.

    Raises:
        ResourceError: the file cannot be written.
    """
    known = RunFolder() if run is None else read_run(Path(run))
    named_so = title or _title(scores)
    write_atomic(Path(path), page(named_so, scores, _sections(scores, labels, fetch, known, environment, commands)))


def _title(scores: Plain) -> str:
    model = str(scores.get("model") or "").rstrip("/\\")
    return Path(model).name or "Evaluation"


def _sections(
    scores: Plain,
    labels: Labels,
    fetch: Fetch | None,
    run: RunFolder,
    environment: Mapping[str, Any] | None,
    commands: Sequence[str] | None,
) -> list[Section]:
    """Put all parts for which there is anything to show into their order."""
    parts = [
        overview.by_class(scores),
        *gallery.galleries(scores, labels, fetch),
        mistakes.confusion(scores),
        mistakes.by_size(scores),
        mistakes.by_distance(scores),
        trust.calibration(scores, run.card or {"calibration": scores.get("calibration")}),
        overview.all_scores(scores),
        learning.training(run),
        origins.data(run, labels.names),
        origins.configuration(run),
        origins.repeat(environment, commands),
        origins.definitions(scores),
    ]
    return [part for part in parts if part is not None]


def page(title: str, scores: Plain, sections: Sequence[Section]) -> str:
    """Put the report together.

    Args:
        title: of the page.
        scores: for the headline.
        sections: in their order.
    """
    return document(title, _masthead(title, scores), sections, "Skip to the scores")


def document(title: str, head_of_page: Markup, sections: Sequence[Section], skip_to: str) -> str:
    """Put a page together from its parts.

    Args:
        title: of the window.
        head_of_page: what comes before the sections.
        sections: in their order.
        skip_to: what the link says that leads past the contents, for those who hear the page.
    """
    style, script = Markup(_file("style.css")), Markup(_file("script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # What gets past the escaping, though nothing should, still can neither run nor call home.
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{shortened(legible(title), 80)} · pixelwise"),
        tag("style", style),
    )
    skip = tag("a", skip_to, href="#main", class_="skip")
    contents = tag(
        "nav", tag("ol", [tag("li", tag("a", s.title, href=f"#{s.id}")) for s in sections]), aria_label="Contents"
    )
    body = [tag("section", tag("h2", s.title), s.body, id=s.id) for s in sections]
    main = tag("main", head_of_page, body, _foot(), id="main")
    whole = tag("html", head, tag("body", skip, contents, main, tag("script", script)), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _masthead(title: str, scores: Plain) -> Markup:
    facts: list[Child] = [f"part “{scores['split']}”" if scores.get("split") else None]
    facts += [plural(int(scores.get("images") or 0), "image"), plural(len(scores.get("classes") or ()), "class")]
    facts.append(today())
    line = tag("ul", [tag("li", fact) for fact in facts if fact is not None], class_="facts-line")
    origin = []
    for name in ("model", "data"):
        if scores.get(name):
            origin.append(tag("li", f"{name} ", tag("code", named(scores[name], 90))))
    where = tag("ul", origin, class_="facts-line origin") if origin else None
    eyebrow = tag("p", "Evaluation report", class_="eyebrow")
    return tag(
        "header",
        eyebrow,
        tag("h1", named(title, 90)),
        line,
        where,
        overview.headline(scores),
        overview.key_figures(scores),
    )


def today() -> str:
    """Write the date."""
    now = datetime.now(UTC)
    return f"{now.day} {now:%B %Y}"


def _foot() -> Markup:
    return tag(
        "footer",
        f"Written by pixelwise {version('pixelwise')}. This file needs nothing beside itself and sends nothing anywhere.",
    )


def _file(name: str) -> str:
    return resources.files("pixelwise.reporting").joinpath(name).read_text(encoding="utf-8")
