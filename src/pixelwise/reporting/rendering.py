"""Render Jinja2 templates to self-contained HTML pages.

Autoescaping is on, and text from files is made printable first, so that no class name or path can alter a page.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pixelwise.metrics.definitions import DEFINITIONS
from pixelwise.reporting import numbers

# Characters that change the text direction beyond the element that holds them.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SOURCE = re.compile(r"arXiv:(?P<arxiv>[0-9]{4}\.[0-9]{4,5})|doi:(?P<doi>10\.[^\s;]+(?:;[0-9])?)")


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Args:
        id: its anchor.
        title: its heading and its entry in the table of contents.
        values: the arguments of its macro.
        macro: the macro in `sections.html` that renders it; `id` if empty.
    """

    id: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    macro: str = ""


def render_page(template: str, title: str, sections: Sequence[Section | None], **values: Any) -> str:
    """Render a page.

    Args:
        template: "report.html" or "check.html".
        title: page title.
        sections: sections in order; None entries are skipped.
        values: further variables of the template.
    """
    style = package_file("style.css")
    script = package_file("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # A second line of defence: even markup that got past the escaping could neither run scripts nor load anything.
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    now = datetime.now(UTC)
    return environment().get_template(template).render(
        title=title,
        sections=[section for section in sections if section is not None],
        style=style,
        script=script,
        policy=policy,
        date=f"{now.day} {now:%B %Y}",
        version=version("pixelwise"),
        **values,
    )  # fmt: skip


@cache
def environment() -> Environment:
    """Return the template environment: autoescaped, and every text passed through `printable`."""
    env = Environment(
        loader=PackageLoader("pixelwise.reporting"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (numbers.count, numbers.decimal, numbers.interval, numbers.percent, numbers.plural, numbers.short):
        env.filters[function.__name__] = function
    env.filters |= {
        "linked": linked,
        "named": named,
        "position": position,
        "score_title": numbers.title_of,
        "shortened": lambda text, limit: shortened(printable(text), limit),
        "term": term,
    }
    env.globals |= {"DEFINITIONS": DEFINITIONS, "score_title": numbers.title_of, "term": term}
    return env


def _finalize(value: Any) -> Any:
    if value is None:
        return ""
    return value if hasattr(value, "__html__") else printable(value)


def package_file(name: str) -> Markup:
    """Return a style sheet or a script of this package."""
    return Markup(resources.files("pixelwise.reporting").joinpath(name).read_text(encoding="utf-8"))


def printable(text: object) -> str:
    """Replace control characters, direction marks and lone surrogates by hexadecimal escapes."""
    return "".join(_printable(c) for c in str(text))


def _printable(c: str) -> str:
    if 0xDC80 <= ord(c) <= 0xDCFF:
        return f"\\x{ord(c) - 0xDC00:02x}"  # a byte of a file name that is not valid UTF-8
    if c not in _BIDI and (unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") or c in "\n\t"):
        return c
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"


def named(text: object, limit: int = 120) -> Markup:
    """Return a name from a file in a `<bdi>` element, so that right-to-left names do not affect the text around them.

    Names of more than `limit` characters are shortened in the middle, with the full name as tooltip.
    """
    full = printable(text)
    if len(full) <= limit:
        return Markup("<bdi>{}</bdi>").format(full)
    return Markup('<bdi title="{}">{}</bdi>').format(full, shortened(full, limit))


def shortened(text: str, limit: int) -> str:
    """Cut a text in the middle to at most `limit` characters; file names often differ at the end only."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def term(key: str, text: str | None = None, unit: bool = False) -> Markup:
    """Return the title of a score as a link to its definition on the same page.

    Args:
        key: key of the score.
        text: link text; the title of the score if None.
        unit: whether to add the unit of scores that are not shares.
    """
    title = text or numbers.title_of(key)
    if key not in DEFINITIONS:
        return escape(title)
    link = Markup('<a href="#def-{}" class="term">{}</a>').format(key, title)
    return (
        link + Markup("<small>{}</small>").format(DEFINITIONS[key].unit) if unit and not numbers.is_share(key) else link
    )


def linked(source: str) -> Markup:
    """Turn the arXiv ids and DOIs of a citation into links."""

    def link(match: re.Match[str]) -> str:
        arxiv, doi = match["arxiv"], match["doi"]
        address = f"https://arxiv.org/abs/{arxiv}" if arxiv else f"https://doi.org/{quote(doi)}"
        return f'<a href="{address}" rel="noreferrer">{match[0]}</a>'

    return Markup(_SOURCE.sub(link, str(escape(source))))


def position(value: float, top: float = 1.0) -> str:
    """Return a value on an axis from 0 to `top` as a percentage of its length."""
    return f"{100 * min(max(value / top if top > 0 else 0.0, 0.0), 1.0):.2f}%"
