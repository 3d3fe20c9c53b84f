from __future__ import annotations

import configparser
import importlib
from collections.abc import Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import MetricThreshold
from mlflow.models.evaluation import EvaluationResult
from mlflow.models.evaluation.evaluator_registry import (
    _model_evaluation_registry as evaluator_registry,
)
from mlflow.models.evaluation.validation import ModelValidationFailedException

import mlflow_sb3
from mlflow_sb3.cli.evaluate import evaluate as evaluate_step
from mlflow_sb3.registry.model_version import Version
from tests import ROOT
from tests.cli.commands import succeed
from tests.lifecycle.runs import get_model_metrics, read_returns

# MLflow 3.17 on pandas 3, when it hashes a DataFrame
pytestmark = pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0")

SEEDS = [5, 6, 7]


@pytest.fixture(autouse=True)
def _plugin() -> Iterator[None]:
    """Register the evaluator, as MLflow does if the package is installed."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["mlflow.model_evaluator"].split("\n")
    name, _, entry_point = lines[-1].partition(" = ")
    module, _, attribute = entry_point.partition(":")
    evaluator = getattr(importlib.import_module(module), attribute)
    evaluator_registry.register(name, evaluator)  # type: ignore[no-untyped-call]
    yield
    del evaluator_registry._registry[name]


def evaluate(data: Any, model: Any = "models:/levels/5", **arguments: Any) -> EvaluationResult:
    settings = {"model_type": "rl-agent", "evaluators": "mlflow_sb3"} | arguments
    result: EvaluationResult = mlflow.models.evaluate(  # type: ignore[no-untyped-call]
        model, data, **settings
    )
    return result


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize("uri", ["models:/levels/5", "models:/levels@staging"])
def test_the_evaluator_has_the_results_of_the_step_to_the_last_bit(uri: str) -> None:
    mlflow.end_run()
    MlflowClient().set_registered_model_alias("levels", "staging", "5")
    options = ("--version", "5", "--episodes", "70", "--seed", "3")
    step = succeed(evaluate_step, "--model-name", "levels", *options)

    result = evaluate(mlflow_sb3.make_episode_seeds(70, seed=3), uri)

    of_step = {key.removeprefix("evaluation/"): value for key, value in step.data.metrics.items()}
    assert result.metrics == of_step
    returns = read_returns(result.run_id, "episodes.json")
    assert returns == read_returns(step.info.run_id, "evaluation/episodes.json")
    assert len(set(returns)) == 70


def test_the_run_and_the_model_get_the_metrics_and_the_run_the_files(
    levels: list[Version],
) -> None:
    MlflowClient().set_registered_model_alias("levels", "staging", "4")
    by_number = evaluate(SEEDS)
    by_alias = evaluate(SEEDS, "models:/levels@staging")

    for result, version in ((by_number, levels[4]), (by_alias, levels[3])):
        assert result.metrics.items() <= get_model_metrics(version.model_id).items()
    run = mlflow.get_run(by_alias.run_id)
    assert run.data.metrics == by_alias.metrics
    assert by_alias.tables["episodes"]["seed"].tolist() == SEEDS
    assert by_alias.artifacts["episodes"].content["columns"][1] == "seed"
    assert by_alias.artifacts["returns"].content.size[0] > 100
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 1


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize(
    "data",
    [
        np.array([[5], [6], [7]]),
        pd.DataFrame({"start": SEEDS}),
        pd.DataFrame({"episode": [0, 1, 2], "seed": SEEDS, "return": [0.0, 1.0, 2.0]}),
    ],
    ids=["array", "column", "table"],
)
def test_every_kind_of_data_plays_the_same_episodes(data: Any) -> None:
    assert evaluate(data).metrics == evaluate(SEEDS).metrics


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 2), np.int64), "data has 2 columns and none with the name 'seed'"),
        ([0.5, 1.5], r"data has the values \[0.5, 1.5\], …, but the seeds"),
        ([-1, 2], r"data has the values \[-1, 2\], …, but the seeds"),
        (pd.DataFrame({"seed": ["a"]}), r"data has the values \['a'\], …, but the seeds"),
        (pd.DataFrame({"seed": []}, dtype=int), "data has no rows, but the seeds"),
    ],
)
def test_data_without_seeds_are_refused(data: Any, message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        evaluate(data)


@pytest.mark.usefixtures("levels")
def test_thresholds_accept_a_good_agent_and_refuse_a_bad_one() -> None:
    threshold = MetricThreshold(4.0, greater_is_better=True)  # type: ignore[no-untyped-call]
    thresholds = {"mean_return": threshold}
    good, bad = (evaluate(list(range(50)), f"models:/levels/{number}") for number in (5, 1))

    mlflow.validate_evaluation_results(thresholds, good)
    with pytest.raises(ModelValidationFailedException, match="mean_return threshold = 4"):
        mlflow.validate_evaluation_results(thresholds, bad)


@pytest.mark.usefixtures("levels")
def test_prefixes_keep_two_evaluations_of_a_run_apart() -> None:
    first = evaluate(SEEDS, evaluator_config={"metric_prefix": "first/"})
    second = evaluate(SEEDS, "models:/levels/1", evaluator_config={"metric_prefix": "second/"})

    run = mlflow.get_run(first.run_id)
    assert second.run_id == first.run_id
    assert run.data.metrics == first.metrics | second.metrics
    of_both = [read_returns(first.run_id, f"{name}/episodes.json") for name in ("first", "second")]
    assert of_both[0] != of_both[1]


@pytest.mark.usefixtures("levels")
def test_other_models_and_settings_are_refused() -> None:
    with pytest.raises(MlflowException, match="was not logged with mlflow_sb3"):
        evaluate(SEEDS, lambda data: data)
    with pytest.raises(MlflowException, match=r"There is no model to play with. Pass model="):
        evaluate(SEEDS, None)
    with pytest.raises(MlflowException, match=r"has the key 'env'\. Use only 'metric_prefix'"):
        evaluate(SEEDS, evaluator_config={"env": "CartPole-v1"})
    with pytest.raises(MlflowException, match="could not be evaluated by any"):
        evaluate(SEEDS, model_type="rl-game")
