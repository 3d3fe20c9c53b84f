from __future__ import annotations

from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion import challengers
from mlflow_sb3.promotion.promotion_request import (
    PromotionRequest,
    PromotionRequestError,
    run_promotion,
)
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import DIGEST_TAG
from tests.promotion.level_promotions import Levels, evidence_of, read_aliases


def run(**values: Any) -> list[PromotionRecord]:
    """Run a promotion of ``levels`` and return its records."""
    records: list[PromotionRecord] = []
    request = PromotionRequest("levels", **{"episodes": 60} | values)
    run_promotion(request, on_record=records.append, progress=False)
    return records


@pytest.fixture
def scored_levels(levels: Levels) -> Levels:
    """The fixture ``levels``: versions 1, 3 and 5 come from runs with scores of their own."""
    client = MlflowClient()
    active = mlflow.active_run()
    assert active is not None
    for score, version in ((1.0, levels[0]), (3.0, levels[2]), (5.0, levels[4])):
        run_id = client.create_run(active.info.experiment_id).info.run_id
        client.log_metric(run_id, challengers.SCORE_METRIC, score)
        entity = client.get_model_version("levels", str(version.number))
        client.create_model_version(
            "levels",
            str(entity.source),
            run_id,
            tags={DIGEST_TAG: str(version.digest)},
            model_id=version.model_id,
        )
    return levels


def test_the_version_with_the_alias_challenger_is_promoted(levels: Levels) -> None:
    versions.set_alias("levels", "challenger", 5)

    (record,) = run()

    assert record.context.challenger == levels[4]
    assert read_aliases() == {"champion": 5}


def test_a_version_number_takes_precedence_over_the_alias(levels: Levels) -> None:
    versions.set_alias("levels", "challenger", 1)

    (record,) = run(number=5)

    assert record.context.challenger == levels[4]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": "force"}, "rule=force and reason must be set together"),
        ({"reason": "because"}, "got rule=test and reason='because'"),
        ({"candidates": "best", "number": 1}, "Leave version and rule=force out"),
        (
            {"candidates": "best", "rule": "force", "reason": "now"},
            "Leave version and rule=force out",
        ),
    ],
)
def test_contradictory_options_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PromotionRequestError, match=message):
        PromotionRequest("levels", **values)


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": 5, "alpha": 0.7}, "got alpha=0.7"),
        ({"candidates": "best", "experiment": "nowhere"}, "'nowhere' does not exist"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PromotionRequestError, match=message):
        run(**values)


@pytest.mark.usefixtures("levels")
def test_a_forced_promotion_needs_no_gate() -> None:
    (record,) = run(number=1, rule="force", reason="the first")

    assert (record.verdict, record.evidence) == ("promote", None)


@pytest.mark.train
@pytest.mark.usefixtures("levels")
def test_fail_on_reject_raises_an_error_if_nothing_was_promoted() -> None:
    with pytest.raises(MlflowException, match="levels/1 did not become the champion of levels"):
        run(number=1, fail_on_reject=True)
    run(number=5, fail_on_reject=True)
    run(number=5, fail_on_reject=True)

    assert read_aliases() == {"champion": 5}


@pytest.mark.usefixtures("scored_levels")
def test_the_best_challengers_share_alpha_in_child_runs() -> None:
    parent = mlflow.active_run()
    assert parent is not None

    records = run(candidates="best", top=2)

    tags = [mlflow.get_run(record.context.run_id).data.tags for record in records]
    assert [record.context.challenger.number for record in records] == [8, 7]
    assert [evidence_of(record).gate.alpha for record in records] == [0.025, 0.025]
    assert [tag["mlflow.parentRunId"] for tag in tags] == [parent.info.run_id] * 2
    assert mlflow.get_run(parent.info.run_id).data.tags["mlflow_sb3.verdict"] == "promote"
