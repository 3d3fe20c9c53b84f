"""Render a report as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from mlflow_sb3.reports.plot_style import BLUE, GREY, ORANGE

_TEMPLATE = "report.html.j2"
_TAG = re.compile(r"<[^>]*>")
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class KeyFigure:
    """A number at the top of a report."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The first cell of each row is the heading of the row.

    Attributes:
        caption: Title of the table.
        columns: Headings of the columns.
        rows: Cells; each row has as many as ``columns``.
        has_texts: Whether cells have texts instead of numbers. The table is then as wide as the
            page and aligned left.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_texts: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure, its text for readers who do not see it, and its caption.

    Attributes:
        figure: The figure. It is drawn as SVG.
        alt: What the figure shows, with its main numbers.
        caption: How to read the figure.
        is_wide: Whether the figure takes the whole width of the page.
    """

    figure: Figure
    alt: str
    caption: str = ""
    is_wide: bool = False


@dataclass(frozen=True)
class Video:
    """A video.

    Attributes:
        content: The MP4 file.
        label: What the video shows.
        artifact: Path of the file among the artifacts of which run, for the printed report.
    """

    content: bytes
    label: str
    artifact: str


@dataclass(frozen=True)
class Section:
    """A section of a report: sentences, figures, tables and a video, in this order."""

    heading: str
    sentences: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    video: Video | None = None


@dataclass(frozen=True)
class Report:
    """Content of a report.

    Attributes:
        title: Result in one line.
        summary: The result in sentences.
        key_figures: The most important numbers.
        sections: The sections in their order.
        source: Where the numbers come from, such as the run and the time.
    """

    title: str
    summary: str
    key_figures: Sequence[KeyFigure]
    sections: Sequence[Section]
    source: str


def render_report(report: Report) -> str:
    """Return a report as an HTML page. All texts are escaped.

    The page has no scripts. Its content security policy forbids every request.
    """
    environment = Environment(
        loader=PackageLoader("mlflow_sb3", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = itertools.count()

    def draw(figure: Figure) -> str:
        return _draw_svg(figure, f"p{next(numbers)}")

    environment.filters |= {"svg": draw, "data_uri": _encode_video}
    colors = {"blue": BLUE, "orange": ORANGE, "grey": GREY}
    return environment.get_template(_TEMPLATE).render(report=report, colors=colors)


def _draw_svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an SVG element whose ids begin with ``prefix``.

    Without the prefix, two figures on a page would have the same ids. Matplotlib escapes the texts.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    return _TAG.sub(lambda tag: _ID.sub(rf"\g<1>{prefix}-", tag.group()), element)


def _encode_video(content: bytes) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(content).decode('ascii')}"
