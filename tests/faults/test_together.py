"""Run eight promotions of one model at the same time, on a server with PostgreSQL."""

from __future__ import annotations

import os
from functools import partial

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.registry import alias_history
from tests.conftest import register_level
from tests.faults import worker

pytestmark = pytest.mark.postgres

ROUNDS = int(os.environ.get("PROMOTION_ROUNDS", "2"))
"""Number of rounds. Each takes half a minute."""
LEVELS = (3, 7, 0, 5, 2, 6, 1, 4)
"""Levels of the versions 1 to 8. A higher level is better."""


def reset_champion() -> None:
    """Delete the aliases and the history of the model."""
    client = MlflowClient()
    client.set_registered_model_tag("levels", "mlflow.sb3.reigns.champion", "{}")
    for alias in client.get_registered_model("levels").aliases:
        client.delete_registered_model_alias("levels", alias)


@pytest.mark.usefixtures("mlflow_server")
def test_the_best_of_eight_versions_becomes_champion() -> None:
    mlflow.set_experiment("levels")
    with mlflow.start_run():
        for level in LEVELS:
            register_level(level)
    best = 1 + LEVELS.index(max(LEVELS))
    for _ in range(ROUNDS):
        reset_champion()
        barrier = worker.context.Barrier(len(LEVELS))

        processes = [
            worker.start(
                mlflow.get_tracking_uri(), partial(worker.promote, number), barrier=barrier
            )
            for number in range(1, 1 + len(LEVELS))
        ]
        for process in processes:
            process.join()

        history = alias_history.read_history("levels", "champion")
        levels = [LEVELS[number - 1] for number in history.numbers]
        assert [process.exitcode for process in processes] == [0] * len(LEVELS)
        assert history.champion == best == history.numbers[-1]
        assert levels == sorted(levels)
        models = MlflowClient().search_registered_models()
        assert [model.name for model in models] == ["levels"]
