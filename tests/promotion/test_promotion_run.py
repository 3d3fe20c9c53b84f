from __future__ import annotations

import re

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion import promotion_run
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.reports.number_format import format_number
from tests.matrix import mark_cases
from tests.promotion.level_promotions import (
    QUICK,
    Levels,
    promote,
    read_description,
    read_promotion_json,
)

GATES = {
    "promote": (3, 5, QUICK),
    "reject": (5, 3, QUICK),
    "tie": (3, 4, QUICK),
    "inconclusive": (1, 2, Gate(episodes=60, alpha=0.001)),
    "reject, min_return": (3, 5, Gate(episodes=60, min_return=9.0)),
    "too few pairs": (1, 2, Gate(episodes=2, alpha=0.001)),
}
"""Champion, challenger and gate for each kind of verdict."""


def numbers_in(value: object) -> set[str]:
    """Return all numbers of a record as descriptions and figures show them."""
    if isinstance(value, dict):
        return {number for inner in value.values() for number in numbers_in(inner)}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {format_number(value), str(value)}
    return set()


@pytest.mark.parametrize("case", mark_cases(GATES, ("promote", "tie")))
def test_all_numbers_of_the_description_and_the_figure_are_in_the_record(
    levels: Levels, case: str
) -> None:
    champion, challenger, gate = GATES[case]
    promote(levels[champion - 1], force_reason="the first")
    record = promote(levels[challenger - 1], gate=gate)
    assert record.evidence is not None
    content = read_promotion_json()
    known = numbers_in(content) | {
        str(len(record.evidence.episodes.seed)),
        f"{100 * (1 - gate.alpha):.4g}",
        *("5", "80"),  # the worst 5 % of returns, and the power
        f"{100 * (record.evidence.largest_share_of_other_pairs or 0.0):.2f}",
    }

    figure = promotion_run.plot_evidence(record, record.evidence)
    labels = [
        label
        for axes in figure.axes
        for label in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
    ]
    times_and_links = r"\d{4}-\d\d-\d\d( \d\d:\d\d UTC)?|\(#/runs/.*\)"
    history, has_card, _ = read_description(levels[challenger - 1]).partition("**Model card**")
    description = re.sub(times_and_links, "", history)
    text = " ".join([description, *labels]).replace("mlflow-sb3", "")
    for name in (record.context.run_id, f"levels/{champion}", f"levels/{challenger}"):
        text = text.replace(name, "")
    text = text.replace(str(record.context.commit), "")

    assert has_card
    assert record.reason in description
    assert set(re.findall(r"-?\d+(?:\.\d+)?", text)) <= known


def test_a_loaded_record_equals_the_logged_one(levels: Levels) -> None:
    record = promote(levels[4])

    assert promotion_run.load_record(record.context.run_id) == record


def log_content(**changes: object) -> str:
    run = mlflow.active_run()
    assert run is not None
    mlflow.log_dict(read_promotion_json() | changes, promotion_run.PROMOTION_JSON)
    return str(run.info.run_id)


def test_a_record_of_another_schema_is_refused(levels: Levels) -> None:
    promote(levels[4], force_reason="the first")
    run_id = log_content(schema=1)

    with pytest.raises(MlflowException, match=r"has schema 1, but .* reads schema 2"):
        promotion_run.load_record(run_id)


def test_an_edited_record_is_refused(levels: Levels) -> None:
    promote(levels[4], force_reason="the first")
    run_id = log_content(time="yesterday")

    with pytest.raises(MlflowException, match=r"is incomplete or was edited: .*time"):
        promotion_run.load_record(run_id)


def test_a_run_without_a_record_is_refused(levels: Levels) -> None:
    run_id = str(levels[4].run_id)

    with pytest.raises(MlflowException, match=r"has no readable promotion\.json"):
        promotion_run.load_record(run_id)
