from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from mlflow_sb3.reports.html_report import (
    KeyFigure,
    Picture,
    Report,
    Section,
    Table,
    Video,
    render_report,
)
from mlflow_sb3.reports.plot_style import apply_style

HOSTILE = "<script>alert(1)</script> --> \" onload='x' & {{ 7 * 7 }}"


class Page(HTMLParser):
    """The tags and attributes of a page, and its texts outside of the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip() and self.tags[-1][0] != "style":
            self.texts.append(data.strip())

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


def draw(label: str) -> Picture:
    with apply_style() as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [1, 2], marker="o", label=label)
        axes.legend()
    return Picture(figure, alt=f"Plot of {label}", caption=label)


def write_report(text: str) -> Report:
    section = Section(
        text,
        [text],
        [draw(text), draw(text)],
        [Table(text, ("", text), [(text, text)])],
        Video(b"mp4", text, text),
    )
    return Report(text, text, [KeyFigure(text, text, text)], [section], text)


def test_every_text_is_shown_as_it_is() -> None:
    page = Page(render_report(write_report(HOSTILE)))

    assert "script" not in {tag for tag, _ in page.tags}
    assert page.values("onload") == []
    in_texts = sum(text.count(HOSTILE) for text in page.texts)
    assert in_texts >= 2 + 1 + 3 + 2 + 2 * 2 + 4 + 2 + 1
    assert page.values("aria-label") == [f"Plot of {HOSTILE}"] * 2 + [HOSTILE]


def test_the_page_loads_nothing() -> None:
    html = render_report(write_report("agent"))
    page = Page(html)

    links = [
        *(value for name in ("src", "href", "xlink:href") for value in page.values(name)),
        *re.findall(r"url\(([^)]*)\)", html),
    ]
    assert all(link.startswith(("data:video/mp4;base64,", "#")) for link in links)
    assert any(value.startswith("default-src 'none';") for value in page.values("content"))
    assert not [tag for tag, _ in page.tags if tag in ("link", "script", "iframe", "object")]


def test_two_plots_on_a_page_have_no_common_ids() -> None:
    html = render_report(write_report("agent"))
    page = Page(html)

    ids = page.values("id")
    targets = {link.removeprefix("#") for link in page.values("xlink:href")}
    targets |= set(re.findall(r"url\(#([^)]*)\)", html))
    assert len(ids) == len(set(ids)) > 20
    assert targets
    assert targets <= set(ids)


def test_headings_of_rows_and_columns_are_marked() -> None:
    table = Table("two agents", ("", "agent/1", "agent/2"), [("mean", "1.00", "2.00")])
    report = Report("title", "", [], [Section("gate", tables=[table])], "")

    page = Page(render_report(report))

    assert page.values("scope") == ["col"] * 3 + ["row"]
    assert page.values("class")[-1] == "numbers"
    assert page.texts[-6:] == ["two agents", "agent/1", "agent/2", "mean", "1.00", "2.00"]


def test_a_report_without_optional_parts_has_no_empty_elements() -> None:
    report = Report("title", "summary", [], [Section("gate", ["a sentence"])], "source")

    page = Page(render_report(report))

    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"dl", "figure", "figcaption", "table", "video", "svg"})
    assert page.texts == ["title", "title", "summary", "gate", "a sentence", "source"]


def test_the_same_report_gives_the_same_page() -> None:
    report = write_report("agent")
    again = replace(report, sections=write_report("agent").sections)

    assert render_report(report) == render_report(again)
