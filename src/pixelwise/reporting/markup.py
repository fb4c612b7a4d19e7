"""HTML that cannot be broken out of: every text is escaped unless it was made here.

Comes in: texts from anywhere, also from hostile files. Goes out: `Markup`. Knows nothing of what a page says.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})
# What turns the direction of all that follows, also outside the text that holds it.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")


class Markup(str):
    """Mark a text as finished HTML."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def legible(text: object) -> str:
    """Show what cannot be seen or written: control characters, marks of direction and lone surrogates become escapes."""
    return "".join(_shown(c) for c in str(text))


def _shown(c: str) -> str:
    if 0xDC80 <= ord(c) <= 0xDCFF:
        return f"\\x{ord(c) - 0xDC00:02x}"  # a byte of a file name that is no UTF-8
    odd = c in _BIDI or (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t")
    if not odd:
        return c
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"


def escape(text: object) -> Markup:
    """Give a text that HTML shows as it is, in elements and in quoted attributes."""
    return text if isinstance(text, Markup) else Markup(html.escape(legible(text), quote=True))


def join(*children: Child) -> Markup:
    """Put pieces behind one another; texts are escaped, None is nothing."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | int):
            parts.append(escape(child))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """Make an element.

    Args:
        name: of the element.
        children: what it holds; texts are escaped.
        attributes: values are escaped; None and False leave one out, True gives one without a value. `class_` and `for_`
            lose their underscore, others become hyphens.
    """
    assert _NAME.fullmatch(name)
    words = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        words.append(f" {key}" if value is True else f' {key}="{escape(value)}"')
    opened = f"<{name}{''.join(words)}>"
    return Markup(opened if name in _VOID else f"{opened}{join(*children)}</{name}>")


def named(text: object, limit: int = 120) -> Markup:
    """Show a name from a file: isolated, so that right-to-left ones keep to themselves, and shortened in the middle."""
    whole = legible(text)
    return tag("bdi", shortened(whole, limit), title=whole if len(whole) > limit else None)


def shortened(text: str, limit: int) -> str:
    """Cut a text in the middle to at most `limit` characters; what tells files apart often stands at the end."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"
