from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest

from mlflow_sb3.training import provenance, training_record
from mlflow_sb3.training.training_record import (
    TRAINING_JSON,
    TRAINING_SCHEMA,
    FreshEpisodes,
    PolicyDigests,
    TrainingRecord,
)
from tests.training.interrupted_runs import CONFIG

RECORD = TrainingRecord(
    CONFIG,
    provenance.collect_facts(1),
    PolicyDigests(kept="a", last="b"),
    FreshEpisodes(competitors=2, first=10, returns=[1.0, 2.5]),
)


def log_record(values: dict[str, Any]) -> str:
    with mlflow.start_run() as run:
        mlflow.log_dict(values, TRAINING_JSON)
    return str(run.info.run_id)


def test_a_record_is_the_same_after_a_round_trip_through_json() -> None:
    assert TrainingRecord.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD


def test_a_record_of_an_earlier_release_has_no_episodes() -> None:
    values = RECORD.to_json()
    del values["episodes"]

    record = TrainingRecord.from_json(values)

    assert record.episodes is None
    assert record.to_json() == values


def test_the_keys_of_the_file_are_stable() -> None:
    values = RECORD.to_json()

    assert TRAINING_SCHEMA == 1
    assert list(values) == ["schema", "recipe", "facts", "policy", "episodes"]
    assert values["episodes"] == {"competitors": 2, "first": 10, "returns": [1.0, 2.5]}
    assert list(values["policy"]) == ["kept", "last"]
    assert list(values["facts"]) == [
        "commit",
        "changes",
        "python",
        "packages",
        "cpu",
        "torch_capability",
        "torch_threads",
    ]


@pytest.mark.usefixtures("store")
def test_a_logged_record_can_be_loaded() -> None:
    run_id = log_record(RECORD.to_json())

    run, record = training_record.load_training_record(run_id)

    assert (run.info.run_id, record) == (run_id, RECORD)


@pytest.mark.usefixtures("store")
def test_a_run_without_a_record_is_rejected() -> None:
    with mlflow.start_run() as run:
        pass

    with pytest.raises(mlflow.MlflowException, match=r"has no readable training\.json\. Pass"):
        training_record.load_training_record(run.info.run_id)


@pytest.mark.usefixtures("store")
def test_a_record_with_another_schema_is_rejected() -> None:
    run_id = log_record(RECORD.to_json() | {"schema": 2})

    with pytest.raises(mlflow.MlflowException, match="has schema 2, but this version of"):
        training_record.load_training_record(run_id)
