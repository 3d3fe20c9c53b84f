from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3.cli.train import train as train_step
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.training import training_run
from tests.cli.commands import TINY_TRAINING, succeed
from tests.lifecycle.runs import list_runs

TINY: dict[str, Any] = {
    "algo": "PPO",
    "total_timesteps": 64,
    "preset": "none",
    "hyperparams": {"n_steps": 64},
    "selection": "best",
    "eval_episodes": 5,
}


@pytest.mark.usefixtures("store")
def test_the_function_trains_the_weights_of_the_step() -> None:
    step = succeed(train_step, *TINY_TRAINING)

    result = mlflow_sb3.train("CartPole-v1", **TINY)

    run = mlflow.get_run(result.run_id)
    digests = [each.data.tags["mlflow_sb3.policy_digest"] for each in (step, run)]
    assert digests[0] == digests[1]
    assert run.data.params == step.data.params
    assert (run.info.run_name, run.info.status) == ("train CartPole-v1 ppo seed 0", "FINISHED")
    assert result.mean_return == run.data.metrics["eval/kept_mean_reward"]
    assert result.mean_return == sum(result.returns) / 5
    assert "\n" not in repr(result)
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("store")
def test_the_agent_is_registered_in_the_run_of_its_training() -> None:
    with mlflow.start_run() as run:
        trained = mlflow_sb3.train(**TINY)
        info = mlflow_sb3.log_model(trained.model, name="agent", registered_model_name="agent")

    assert trained.run_id == info.run_id == run.info.run_id
    played = mlflow_sb3.evaluate("models:/agent/1", n_episodes=10)
    assert (
        played.returns.tolist()
        == mlflow_sb3.evaluate(trained.model, n_episodes=10).returns.tolist()
    )
    assert len(list_runs()) == 1


@pytest.mark.usefixtures("store")
def test_a_registered_agent_has_the_card_of_its_training() -> None:
    trained = mlflow_sb3.train("CartPole-v1", **TINY)

    number = trained.register("agent")

    version = MlflowClient().get_model_version_by_alias("agent", "challenger")
    assert int(version.version) == number == 1
    assert version.run_id == trained.run_id
    assert version.tags["mlflow_sb3.seed"] == "0"
    description = str(version.description)
    assert f"| kept checkpoint&ensp; | step {trained.step} |" in description
    assert "| seed&ensp; | 0 |" in description
    assert "| episodes&ensp; | 5 |" in description


@pytest.fixture
def _autolog() -> Iterator[None]:
    """Let SB3 log trainings during the test."""
    mlflow_sb3.autolog()
    yield
    mlflow_sb3.autolog(disable=True)


@pytest.mark.usefixtures("store", "_autolog")
def test_autolog_does_not_log_the_training_again() -> None:
    result = mlflow_sb3.train(**TINY)

    assert mlflow.search_logged_models(output_format="list") == []
    assert len(list_runs()) == 1
    PPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu").learn(64)
    assert len(list_runs()) == 2
    assert mlflow.get_run(result.run_id).info.status == "FINISHED"


@pytest.mark.usefixtures("store")
def test_an_interrupted_training_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "log_training_run", interrupt)
        with pytest.raises(Interrupted, match="SIGTERM"):
            mlflow_sb3.train(**TINY, snapshot_every=64)
    interrupted = list_runs()[-1]
    assert interrupted.info.status == "KILLED"

    with pytest.raises(MlflowException, match="trained with seed=0, but seed is now 1"):
        mlflow_sb3.train(resume=interrupted.info.run_id, seed=1)
    result = mlflow_sb3.train(resume=interrupted.info.run_id, algo="ppo")

    run = mlflow.get_run(result.run_id)
    assert run.data.tags["mlflow_sb3.resumed_from"] == interrupted.info.run_id
    assert run.data.params["sb3/timesteps"] == "64"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_timesteps": 0}, "total_timesteps=0 is too small. Use 1 or more"),
        ({"seed": -1}, "seed=-1 is too small"),
        ({"eval_budget": float("nan")}, "eval_budget=nan is too small"),
        ({"selection": "all"}, "selection='all' is unknown. Use 'race' or 'best' or 'none'"),
        ({"preset": "sb3"}, "preset='sb3' is unknown. Use 'zoo' or 'none'"),
        ({"hyperparams": {"policy_kwargs": {"net": dict}}}, "cannot be stored as JSON"),
    ],
)
def test_wrong_arguments_are_refused_without_a_run(
    store: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        mlflow_sb3.train(**arguments)

    assert list_runs() == []


@pytest.mark.usefixtures("store")
def test_an_unknown_algorithm_ends_the_run_as_failed() -> None:
    with pytest.raises(MlflowException, match=r"Unknown algorithm 'dqnn'\. Did you mean 'dqn'"):
        mlflow_sb3.train(algo="dqnn")

    assert list_runs()[-1].info.status == "FAILED"
