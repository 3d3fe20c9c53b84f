from __future__ import annotations

import math
from dataclasses import replace

import mlflow
import numpy as np

from mlflow_sb3.promotion import evidence
from mlflow_sb3.promotion.gate import Gate
from tests.promotion.level_promotions import Levels, evidence_of, promote


def test_an_infinite_bound_is_recorded_as_none(levels: Levels) -> None:
    record = promote(levels[1], gate=Gate(episodes=2, alpha=0.001))

    assert all(
        value is None or math.isfinite(value)
        for look in evidence_of(record).looks
        for value in (look.lower, look.upper, look.bootstrap_lower, look.bootstrap_upper)
    )


def test_the_context_has_versions_run_and_packages(levels: Levels) -> None:
    active = mlflow.active_run()
    assert active is not None
    run = mlflow.get_run(active.info.run_id)

    context = evidence.collect_context(run, levels[4], levels[2], alias="champion", rule="rollback")

    assert (context.challenger, context.champion) == (levels[4], levels[2])
    assert (context.run_id, context.rule) == (run.info.run_id, "rollback")
    assert context.versions["numpy"] == np.__version__


def test_metrics_leave_unknown_values_out(levels: Levels) -> None:
    results = evidence_of(promote(levels[4]))

    metrics = evidence.build_metrics(results)
    unbounded = evidence.build_metrics(replace(results, lower_bound=None))

    assert metrics["promotion/pairs"] == len(results.episodes.seed)
    assert metrics["promotion/mean_difference"] == results.mean_difference
    assert metrics["promotion/challenger_worst_return"] == results.challenger_episodes.worst_return
    assert "promotion/challenger_success_rate" not in metrics
    assert "promotion/lower_bound" in metrics
    assert "promotion/lower_bound" not in unbounded
