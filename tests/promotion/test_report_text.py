from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import mlflow
import pytest
from matplotlib.collections import PathCollection
from mlflow import MlflowClient

from mlflow_sb3.promotion import promote, record, report_text
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports import plots

GATES = {
    "promote": (3, 5, Gate(episodes=60)),
    "reject": (5, 3, Gate(episodes=60)),
    "tie": (3, 4, Gate(episodes=60)),
    "inconclusive": (1, 2, Gate(episodes=60, alpha=0.001)),
    "reject, least return": (3, 5, Gate(episodes=60, min_return=9.0)),
    "too few": (1, 2, Gate(episodes=2, alpha=0.001)),
}


def promoted(levels: list[Version], champion: int, challenger: int, gate: Gate) -> dict[str, Any]:
    """The record, read back from the run's promotion.json."""
    promote.promote_version(levels[champion - 1], PromotionOptions(force="the first"))
    promote.promote_version(levels[challenger - 1], PromotionOptions(gate=gate))
    run = mlflow.active_run()
    assert run is not None
    found: dict[str, Any] = json.loads(
        mlflow.artifacts.load_text(f"{run.info.artifact_uri}/promotion.json")
    )
    return found


def numbers(value: Any) -> set[str]:
    """Every number in a record as text for people has it."""
    if isinstance(value, dict):
        return set().union(*map(numbers, value.values())) if value else set()
    if isinstance(value, list):
        return set()
    return (
        {report_text.format_number(value), str(value)}
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else set()
    )


@pytest.mark.parametrize("case", GATES)
def test_every_number_in_the_description_and_the_picture_is_one_of_the_record(
    levels: list[Version], case: str
) -> None:
    champion, challenger, gate = GATES[case]
    found = promoted(levels, champion, challenger, gate)
    pairs = len(found["episodes"]["seed"])
    known = numbers(found) | {str(pairs), f"{100 * (1 - gate.alpha):.4g}", "5", "80", "2"}
    if found["largest_share_of_other_pairs"]:
        known.add(f"{100 * found['largest_share_of_other_pairs']:.2f}")

    text = str(MlflowClient().get_model_version("levels", str(challenger)).description).replace(
        found["run_id"], ""
    )
    text = (
        text.replace(f"levels/{champion}", "")
        .replace(f"levels/{challenger}", "")
        .replace(str(found["commit"]), "")
    )
    figure = plots.plot_pairs(found)
    shown = [
        part
        for axes in figure.axes
        for part in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
    ]
    drawn = " ".join(shown).replace(f"levels/{champion}", "").replace(f"levels/{challenger}", "")

    assert found["reason"] in str(
        MlflowClient().get_model_version("levels", str(challenger)).description
    )
    assert set(re.findall(r"-?\d+(?:\.\d+)?", text.replace("mlflow-sb3", ""))) <= known
    assert set(re.findall(r"-?\d+(?:\.\d+)?", drawn)) <= known


def test_the_points_of_the_picture_are_the_pairs_and_the_looks(levels: list[Version]) -> None:
    found = promoted(levels, 3, 5, Gate(episodes=60))

    pairs, looks = plots.plot_pairs(found).axes

    (scattered,) = [part for part in pairs.collections if isinstance(part, PathCollection)]
    assert sorted(map(tuple, scattered.get_offsets().tolist())) == sorted(  # type: ignore[union-attr]
        zip(
            found["episodes"]["champion_return"],
            found["episodes"]["challenger_return"],
            strict=True,
        )
    )
    (means,) = [part for part in looks.collections if isinstance(part, PathCollection)]
    assert [y for _, y in means.get_offsets().tolist()] == [
        look["mean_difference"] for look in found["looks"]
    ]  # type: ignore[union-attr]
    assert [label.get_text() for label in looks.get_xticklabels()] == [
        str(look["pairs"]) for look in found["looks"]
    ]


def test_what_people_wrote_in_a_description_stays(levels: list[Version]) -> None:
    MlflowClient().update_model_version("levels", "5", "Trained on the new track.")

    promoted(levels, 5, 3, Gate(episodes=60))
    before = MlflowClient().get_model_version("levels", "5").description
    MlflowClient().update_model_version("levels", "5", f"{before}\n\nApproved by Ann.")
    promote.promote_version(levels[4], PromotionOptions(force="again", alias="other"))

    text = str(MlflowClient().get_model_version("levels", "5").description)
    assert text.startswith("Trained on the new track.")
    assert text.endswith("Approved by Ann.")
    assert (text.count(report_text.BEGIN_MARK), text.count(report_text.END_MARK)) == (1, 1)
    assert "levels/5 did not have to play: again. So it becomes the other." in text


@pytest.mark.parametrize(
    ("returned", "threshold", "says"),
    [
        (500.0, 475.0, "The environment's ceiling is reached: it does not tell them apart"),
        (-200.0, -110.0, "The environment does not tell them apart"),
        (7.0, None, "The environment does not tell them apart"),
    ],
)
def test_a_tie_at_the_ceiling_says_so(
    levels: list[Version], returned: float, threshold: float | None, says: str
) -> None:
    found = promoted(levels, 3, 4, Gate(episodes=60)) | {
        "all_returns_equal": True,
        "reward_threshold": threshold,
    }
    found["challenger_episodes"]["mean_return"] = returned

    assert (
        report_text.verdict_reason(found)
        == f"levels/4 and levels/3 returned {returned:.2f} in each of 60 episodes. {says}, so levels/3 stays the champion."
    )


def test_metrics_have_no_unknown_numbers(levels: list[Version]) -> None:
    found = promoted(levels, 3, 5, replace(Gate(), episodes=60))

    metrics = record.record_metrics(found)

    assert metrics["promotion/pairs"] == 60
    assert metrics["promotion/mean_difference"] == found["mean_difference"]
    assert "promotion/lower_bound" not in record.record_metrics(found | {"lower_bound": None})


def test_a_description_is_never_longer_than_databases_take(levels: list[Version]) -> None:
    found = promoted(levels, 3, 5, Gate(episodes=60))
    whole = report_text.version_description(found, "people", 5000)

    short = report_text.version_description(found, "people", len(whole) - 1)

    assert "| mean return |" in whole
    assert "| mean return |" not in short
    assert found["reason"] in short
    assert report_text.version_description(found, "x" * 5000, 5000) == "x" * 5000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (500.0, "500.00"),
        (-0.5, "-0.50"),
        (0.0, "0.00"),
        (0.00234, "0.0023"),
        (-1e-7, "-1e-07"),
        (None, "unknown"),
    ],
)
def test_small_numbers_are_not_rounded_away(value: float | None, text: str) -> None:
    assert report_text.format_number(value) == text
