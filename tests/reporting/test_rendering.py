"""No text that is put into a template can change the structure of the page."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from pixelwise.reporting.rendering import environment, linked, named, position, printable, shortened, term


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.data = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data):
        self.data += data


ANY = st.text(st.characters(), max_size=60)
ELEMENT = environment().from_string('<p title="{{ title }}" class="a">{{ text }}</p>')


@given(ANY, ANY)
def test_any_text_stays_text_and_any_attribute_stays_an_attribute(text, title):
    reader = Reader(ELEMENT.render(text=text, title=title))
    assert [name for name, _ in reader.tags] == ["p"]
    assert reader.data == printable(text).replace("\r", "\n")
    assert reader.tags[0][1] == {"title": printable(title), "class": "a"}


@given(st.text(st.characters(categories=["Cs", "Cc", "Cf", "L", "Zl"]), max_size=40))
def test_printable_text_can_be_encoded_and_has_no_direction_marks(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\x00\x1b\x7f") & set(shown)
    assert printable(shown) == shown


def test_bytes_of_file_names_that_are_not_utf8_become_escapes():
    assert printable("a\udcff") == "a\\xff"
    assert printable("\ud800") == "\\ud800"
    assert printable("a\u202eb") == "a\\u202eb"
    assert printable("tab\tand\nline") == "tab\tand\nline"


def test_markup_is_not_escaped_twice_and_none_is_empty():
    template = environment().from_string("{{ a }}{{ b }}{{ c }}")
    assert template.render(a=named("<"), b=None, c="&") == "<bdi>&lt;</bdi>&amp;"


def test_an_undefined_variable_is_an_error():
    with pytest.raises(UndefinedError):
        environment().from_string("{{ missing }}").render()


def test_names_are_isolated_and_shortened_in_the_middle():
    assert named("שלום") == "<bdi>שלום</bdi>"
    assert named("a" * 30 + "b" * 30, 21) == f'<bdi title="{"a" * 30}{"b" * 30}">{"a" * 13}…{"b" * 7}</bdi>'


@given(st.text(), st.integers(3, 50))
def test_shortened_texts_are_short(text, limit):
    assert len(shortened(text, limit)) <= limit


def test_an_unknown_score_is_shown_without_a_link():
    assert term("new_score") == "new score"
    assert term("iou") == '<a href="#def-iou" class="term">IoU</a>'
    assert term("hausdorff", unit=True).endswith("<small>length, in the unit of the grid</small>")


def test_sources_are_linked():
    text = linked("A <b> 2015, arXiv:1411.4038; B, doi:10.1109/CVPR.2016.85")
    assert '<a href="https://arxiv.org/abs/1411.4038" rel="noreferrer">arXiv:1411.4038</a>; B' in text
    assert 'href="https://doi.org/10.1109/CVPR.2016.85"' in text
    assert text.startswith("A &lt;b&gt; 2015")


def test_positions_are_clipped_to_the_axis():
    assert [position(value, 0.4) for value in (-1, 0.2, 3)] == ["0.00%", "50.00%", "100.00%"]
    assert position(1, 0) == "0.00%"
