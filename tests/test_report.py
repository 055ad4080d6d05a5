"""The report: one file that needs nothing, escapes everything, and keeps the exact figures."""

from __future__ import annotations

import base64
import doctest
import json
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import scmulan
from scmulan import report as module
from scmulan.errors import CellDataError, EngineError
from scmulan.report import Report

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Reads a page: elements with their attributes, the text of each, and whether all were closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.words.append((self.open[-1], data.strip()))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, tag):
        return [text for name, text in self.words if name == tag]


@pytest.fixture
def full(tmp_path):
    image = tmp_path / "one.png"
    image.write_bytes(PIXEL)
    return (
        Report("Blood", "First.\n\nRun `scmulan demo`.")
        .headline("accuracy", np.float64(0.931), "logistic regression 0.912")
        .section("Annotation", "Ten types.")
        .table([["scmulan", 0.93125], ["majority", None]], ["who", "accuracy"], "Held out", emphasise="scmulan")
        .figure(image, "A pixel")
        .section("A cell")
        .code("<bos> <cell>", "One cell")
    )


def test_examples_in_docstrings_run():
    assert doctest.testmod(module).failed == 0


def test_the_page_is_well_formed_and_holds_all_that_was_given(full):
    page = Page(full.html())
    assert not page.open
    assert page.text("h1") == ["Blood"]
    assert page.text("h2") == ["Annotation", "A cell"]
    assert page.text("th") == ["who", "accuracy"]
    assert page.text("td") == ["scmulan", "0.931", "majority", "–"]
    assert page.text("pre") == ["<bos> <cell>"]
    assert page.text("code") == ["scmulan demo"]
    assert {"0.931", "logistic regression 0.912"} <= set(page.text("dd"))
    assert page.text("footer") == [f"Made by scmulan {scmulan.__version__}"]


def test_every_link_of_the_contents_leads_to_a_section(full):
    page = Page(full.html())
    anchors = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    links = [attrs["href"] for attrs in page.all("a")]
    assert links == ["#annotation", "#a-cell"]
    assert {link[1:] for link in links} <= anchors


def test_sections_of_one_title_have_addresses_of_their_own():
    report = Report("R").section("B cell").section("B-cell").section("B cell").section("???").section("top")
    anchors = [section.anchor for section in report.sections]
    assert anchors == ["top", "b-cell", "b-cell-2", "b-cell-3", "section", "top-2"]


def test_one_section_needs_no_contents():
    assert "<nav" not in Report("R").section("Only").html()


def test_the_page_fetches_nothing_and_runs_nothing(full):
    page = Page(full.html())
    assert not page.all("script")
    assert not page.all("link")
    assert all(attrs["src"].startswith("data:image/") for attrs in page.all("img"))
    assert "default-src 'none'" in full.html()
    assert "http://" not in full.html()
    assert "https://" not in full.html()


def test_everything_given_is_escaped():
    evil = "<script>alert('x')</script>&\"'"
    report = Report(evil, evil, footer=evil).headline(evil, evil, evil).section(evil, f"{evil} `{evil}`").code(evil, evil)
    page = Page(report.section("Two").table([[evil, 1]], [evil, "n"], evil).html())
    assert not page.all("script")
    assert page.text("h1") == [evil]
    assert page.text("td")[0] == evil


def test_an_image_is_embedded_byte_for_byte_with_words_for_it(full):
    (image,) = Page(full.html()).all("img")
    assert base64.b64decode(image["src"].split(",")[1]) == PIXEL
    assert image["alt"] == "A pixel"


def test_a_matplotlib_figure_is_embedded_at_the_width_it_was_drawn_for():
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    (image,) = Page(Report("R").figure(figure, "Line", alt="A line that rises").html()).all("img")
    assert base64.b64decode(image["src"].split(",")[1]).startswith(b"\x89PNG")
    assert (image["width"], image["alt"]) == ("192", "A line that rises")


def test_mappings_make_a_table_whatever_keys_they_lack():
    report = Report("R").table([{"type": "B", "n": 3}, {"type": "NK", "f1": 0.5}])
    (table,) = report.sections[0].blocks
    assert table.columns == ["type", "n", "f1"]
    assert table.rows == [["B", 3, None], ["NK", None, 0.5]]
    assert table.is_numeric == [False, True, True]


def test_only_the_emphasised_row_is_emphasised(full):
    rows = [attrs.get("class") for attrs in Page(full.html()).all("tr")]
    assert rows == [None, "emphasised", None]


def test_json_keeps_the_exact_values_that_the_page_rounds(full):
    content = json.loads(full.to_json())
    assert content["sections"][0]["tables"][0]["rows"] == [["scmulan", 0.93125], ["majority", None]]
    assert content["sections"][0]["figures"] == ["A pixel"]
    assert content["sections"][1]["code"] == ["<bos> <cell>"]
    assert content["headlines"] == [{"name": "accuracy", "value": 0.931, "beside": "logistic regression 0.912"}]


def test_numbers_of_numpy_and_those_that_are_none_become_plain_json():
    report = Report("R").table([[np.int64(3), np.float32(0.5), float("nan"), float("inf"), np.True_]], list("abcde"))
    (section,) = json.loads(report.to_json())["sections"]
    assert section["tables"][0]["rows"] == [[3, 0.5, None, "inf", True]]


def test_the_same_report_gives_the_same_page(full, tmp_path):
    assert full.html() == full.html()
    first = full.write(tmp_path / "deep" / "report.html")
    assert first.read_text(encoding="utf-8") == full.html()
    assert [each.name for each in first.parent.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path, monkeypatch):
    target = Report("Old").write(tmp_path / "report.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(EngineError, match=r"jinja2.*pip install 'scmulan\[plots\]'"):
        Report("New").write(target)
    assert "Old" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda r, p: r.table([["a", 1], ["b"]], ["x", "y"], "T"), "'T', row 2: 1 values for 2 columns"),
        (lambda r, p: r.figure(p / "no.png", "x"), "no such image"),
        (lambda r, p: r.figure(p / "no.pdf", "x"), "not an image"),
        (lambda r, p: r.figure(p / "no.png"), "neither caption nor alt"),
    ],
)
def test_what_cannot_be_shown_says_why(tmp_path, add, message):
    with pytest.raises(CellDataError, match=message):
        add(Report("R"), tmp_path)


def test_an_empty_report_is_still_a_page():
    page = Page(Report("Nothing yet").html())
    assert page.text("h1") == ["Nothing yet"]
    assert not page.all("table")
