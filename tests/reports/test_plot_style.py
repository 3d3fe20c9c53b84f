from __future__ import annotations

import matplotlib as mpl
from matplotlib import font_manager

from mlflow_sb3.reports import plot_style


def test_characters_without_a_glyph_are_replaced() -> None:
    fonts = plot_style._find_fonts()
    has_chinese = any(
        font_manager.get_font(font_manager.findfont(font)).get_char_index(ord("车"))
        for font in fonts
    )

    assert plot_style.format_text("agent/2 é µ ≥") == "agent/2 é µ ≥"
    assert plot_style.format_text("车杆/2") == ("车杆/2" if has_chinese else "??/2")


def test_a_long_text_is_wrapped() -> None:
    assert plot_style.format_text("one two three", 8) == "one two\nthree"


def test_the_style_does_not_change_other_figures() -> None:
    before = dict(mpl.rcParams)

    with plot_style.apply_style(6.0, 3.0) as figure:
        inside = mpl.rcParams["font.size"]

    assert (inside, figure.get_figwidth()) == (13.0, 6.0)
    assert dict(mpl.rcParams) == before
