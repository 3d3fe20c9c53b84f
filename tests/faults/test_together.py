"""Eight promotions of one model at once, on an `mlflow server` with PostgreSQL: the best is champion in the end."""

from __future__ import annotations

import json
import os
from functools import partial

import mlflow
import pytest
from mlflow import MlflowClient

from tests.conftest import register_level
from tests.faults import worker

pytestmark = pytest.mark.postgres

ROUNDS = int(os.environ.get("PROMOTION_ROUNDS", "2"))
"""Takes half a minute each."""
ORDER = (3, 7, 0, 5, 2, 6, 1, 4)
"""How good the versions 1 to 8 are."""


@pytest.mark.usefixtures("mlflow_server")
def test_the_best_of_eight_promotions_at_once_is_champion() -> None:
    mlflow.set_experiment("levels")
    with mlflow.start_run():
        for level in ORDER:
            register_level(level)
    best = 1 + ORDER.index(max(ORDER))
    client = MlflowClient()
    for _ in range(ROUNDS):
        client.set_registered_model_tag("levels", "mlflow_sb3.reigns.champion", "{}")
        for alias in client.get_registered_model("levels").aliases:
            client.delete_registered_model_alias("levels", alias)
        barrier = worker.context.Barrier(len(ORDER))

        processes = [
            worker.start(
                mlflow.get_tracking_uri(), partial(worker.promote, 1 + place), barrier=barrier
            )
            for place in range(len(ORDER))
        ]
        for process in processes:
            process.join()

        model = client.get_registered_model("levels")
        reigns = json.loads(model.tags["mlflow_sb3.reigns.champion"])["numbers"]
        assert [process.exitcode for process in processes] == [0] * len(ORDER)
        assert int(model.aliases["champion"]) == best == reigns[-1]
        assert [ORDER[number - 1] for number in reigns] == sorted(
            ORDER[number - 1] for number in reigns
        )
        assert [found.name for found in client.search_registered_models()] == ["levels"]
