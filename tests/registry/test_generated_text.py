from __future__ import annotations

import pytest

from mlflow_sb3.registry.generated_text import Description

TEXT = "2026-11-26 promoted\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_description_starts_with_the_text_and_not_with_a_mark() -> None:
    text = Description("", TEXT, "").format("promotion")

    assert text.startswith("2026-11-26 promoted <!-- mlflow-sb3: promotion -->\n\n| a | b |")
    assert text.endswith("| 1 | 2 |\n\n<!-- mlflow-sb3: end -->")


@pytest.mark.parametrize("above", ["", "Trained on ice.\n\nBy Ann."])
@pytest.mark.parametrize("generated", ["one line", TEXT])
@pytest.mark.parametrize("below", ["", "Approved."])
def test_the_parts_of_a_description_are_found_again(above: str, generated: str, below: str) -> None:
    description = Description(above, generated, below)

    assert Description.parse(description.format("x"), "x") == description


def test_a_description_without_a_mark_is_the_text_of_a_user() -> None:
    assert Description.parse(" mine ", "promotion") == Description("mine", "", "")


def test_the_mark_of_earlier_releases_is_read() -> None:
    text = f"mine\n\n<!-- mlflow-sb3: promotion -->\n\n{TEXT}\n\n<!-- mlflow-sb3: end -->\n\nyours"

    assert Description.parse(text, "promotion") == Description("mine", TEXT, "yours")


def test_text_of_a_user_is_kept_although_the_end_mark_was_deleted() -> None:
    edited = Description("", TEXT, "").format("promotion").replace("mlflow-sb3: end", "mine")

    parsed = Description.parse(edited, "promotion")

    assert parsed.generated == "2026-11-26 promoted"
    assert "| 1 | 2 |" in parsed.below
    assert "mine" in parsed.below


def test_sections_with_different_labels_are_independent() -> None:
    first = Description("", "one", "").format("a")
    both = Description(first, "two", "").format("b")

    changed = Description.parse(both, "a")

    assert changed.generated == "one"
    assert Description.parse(
        Description(changed.above, "three", changed.below).format("a"), "b"
    ) == (Description("three <!-- mlflow-sb3: a -->\n\n<!-- mlflow-sb3: end -->", "two", ""))


def test_text_of_a_user_in_the_first_line_is_kept() -> None:
    text = "Do not delete. " + Description("", TEXT, "").format("promotion")

    assert Description.parse(text, "promotion") == Description("Do not delete.", TEXT, "")


def test_a_deleted_end_mark_does_not_swallow_the_next_section() -> None:
    first = Description("", TEXT, "").format("a").replace("<!-- mlflow-sb3: end -->", "")
    text = f"{first}\n\n{Description('', 'two', '').format('b')}"

    assert Description.parse(text, "b").generated == "two"
    assert "two" in Description.parse(text, "a").below


@pytest.mark.parametrize("first_line", ["2026-11-26 promoted", "**Model card**: PPO agent"])
def test_a_new_section_can_stand_before_another_one(first_line: str) -> None:
    other = Description("mine", first_line, "yours").format("card")

    parsed = Description.parse(other, "promotion", before="card")

    assert parsed == Description("mine", "", other.removeprefix("mine\n\n"))
    assert Description(parsed.above, TEXT, parsed.below).format("promotion") == (
        f"mine\n\n{Description('', TEXT, '').format('promotion')}\n\n{parsed.below}"
    )


def test_a_section_keeps_its_place_behind_another_one() -> None:
    other = Description("", "one", "").format("card")
    text = Description(other, TEXT, "").format("promotion")

    assert Description.parse(text, "promotion", before="card") == Description(other, TEXT, "")


def test_a_section_before_a_missing_one_stands_at_the_end() -> None:
    assert Description.parse("mine", "promotion", before="card") == Description("mine", "", "")
