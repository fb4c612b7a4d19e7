"""Nothing that is put into the page can get out of where it was put."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from pixelwise.reporting.markup import Markup, escape, join, legible, named, shortened, tag


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


@given(ANY, ANY)
def test_any_text_comes_back_as_text_and_any_attribute_as_that(inside, value):
    reader = Reader(tag("p", inside, title=value, class_="a"))
    assert [name for name, _ in reader.tags] == ["p"]
    assert reader.data == legible(inside).replace("\r", "\n")
    assert reader.tags[0][1] == {"title": legible(value), "class": "a"}


@given(st.text(st.characters(categories=["Cs", "Cc", "Cf", "L", "Zl"]), max_size=40))
def test_what_is_legible_can_be_written_and_turns_no_direction(text):
    shown = legible(text)
    shown.encode("utf-8")
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\x00\x1b\x7f") & set(shown)
    assert legible(shown) == shown


def test_bytes_of_file_names_that_are_no_utf8_are_told():
    assert legible("a\udcff") == "a\\xff"
    assert legible("\ud800") == "\\ud800"
    assert legible("a\u202eb") == "a\\u202eb"
    assert legible("tab\tand\nline") == "tab\tand\nline"


def test_finished_markup_is_not_escaped_twice():
    assert escape(tag("b", "&")) == "<b>&amp;</b>"
    assert join("<", None, ["<", (tag("br"), 3)]) == "&lt;&lt;<br>3"


def test_attributes():
    assert tag("input", checked=True, for_="a", data_sort=0.5, title=None, hidden=False) == (
        '<input checked for="a" data-sort="0.5">'
    )


def test_markup_stays_markup_only_when_it_was_made_here():
    assert not isinstance(Markup("<b>") + "<i>", Markup)
    assert tag("p", Markup("<b>") + "<i>") == "<p>&lt;b&gt;&lt;i&gt;</p>"


def test_names_are_isolated_and_shortened_in_the_middle():
    assert named("שלום") == "<bdi>שלום</bdi>"
    assert named("a" * 30 + "b" * 30, 21) == f'<bdi title="{"a" * 30}{"b" * 30}">{"a" * 13}…{"b" * 7}</bdi>'


@given(st.text(), st.integers(3, 50))
def test_shortened_texts_are_short(text, limit):
    assert len(shortened(text, limit)) <= limit
