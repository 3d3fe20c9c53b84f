from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import mlflow
import mlflow.pytorch
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import mlflow_sb3
from mlflow_sb3 import MlflowCallback
from mlflow_sb3.autologging import autolog as autolog_module
from tests.autologging.test_callback import FailAtStep, list_artifacts, make_ppo, read_steps
from tests.environments import OneStep

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.train]


@pytest.fixture(autouse=True)
def _disable_afterwards() -> Iterator[None]:
    yield
    mlflow_sb3.autolog(disable=True)


def search_runs() -> list[Run]:
    runs: list[Run] = mlflow.search_runs(
        output_format="list", order_by=["attributes.start_time ASC"]
    )
    return runs


def list_datasets(run: Run) -> list[str]:
    return [] if run.inputs is None else [one.dataset.name for one in run.inputs.dataset_inputs]


def list_models(run: Run) -> list[str]:
    return [] if run.outputs is None else [one.model_id for one in run.outputs.model_outputs]


def test_two_lines_log_the_training_and_register_its_best_agent() -> None:
    mlflow_sb3.autolog(registered_model_name="my-cartpole")
    make_ppo().learn(320)

    [run] = search_runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "train CartPole-v1 ppo seed 0"
    assert run.data.params["sb3/n_steps"] == "32"
    assert len(read_steps(run, "eval/mean_reward")) >= 2
    assert run.data.metrics["eval/kept_step"] in read_steps(run, "eval/mean_reward")
    kept_step = int(run.data.metrics["eval/kept_step"])
    assert list_artifacts(run, "videos") == [f"videos/step_{kept_step:09d}.mp4"]
    assert list_datasets(run) == ["CartPole-v1"]
    version = MlflowClient().get_model_version_by_alias("my-cartpole", "challenger")
    assert version.run_id == run.info.run_id
    action, _ = mlflow_sb3.load_policy("models:/my-cartpole@challenger").predict([0, 0, 0, 0.1])
    assert action in (0, 1)
    info = mlflow.models.get_model_info("models:/my-cartpole/1")
    assert info.signature is not None
    assert info.saved_input_example_info is not None


def test_disable_restores_learn() -> None:
    originals = {cls: cls.learn for cls in (PPO, A2C, TRPO)}
    mlflow_sb3.autolog(log_models=False)
    assert all(cls.learn is not original for cls, original in originals.items())

    mlflow_sb3.autolog(disable=True)

    assert {cls: cls.learn for cls in originals} == originals
    make_ppo().learn(32)
    assert search_runs() == []


def test_another_call_replaces_the_settings() -> None:
    mlflow_sb3.autolog(log_models=False, extra_tags={"team": "a"})
    mlflow_sb3.autolog(log_models=False, extra_tags={"team": "b"})

    make_ppo().learn(32)

    assert [run.data.tags["team"] for run in search_runs()] == ["b"]


def test_the_active_run_is_used_unless_autolog_is_exclusive() -> None:
    for exclusive in (False, True):
        mlflow_sb3.autolog(log_models=False, exclusive=exclusive)
        with mlflow.start_run():
            make_ppo().learn(32)

    inclusive, exclusive_run = search_runs()
    assert inclusive.data.params["sb3/algo"] == "ppo"
    assert exclusive_run.data.params == {}


def test_the_callback_of_the_caller_is_not_doubled() -> None:
    mlflow_sb3.autolog(log_models=False)
    callback = MlflowCallback(log_model=False, run_name="mine")

    make_ppo().learn(32, callback=[callback])

    assert [run.info.run_name for run in search_runs()] == ["mine"]


def test_other_callbacks_of_the_caller_are_called() -> None:
    mlflow_sb3.autolog(log_models=False)
    steps = []

    def count(values: dict[str, Any], _: dict[str, Any]) -> bool:
        steps.append(values["self"].num_timesteps)
        return len(steps) < 40

    make_ppo().learn(96, count)

    assert len(steps) == 40  # a callback that returns False ends the training
    assert [run.info.status for run in search_runs()] == ["FINISHED"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt("broken")])
def test_an_error_in_learn_ends_the_run_at_once(error: BaseException) -> None:
    mlflow_sb3.autolog()

    with pytest.raises(type(error), match="broken"):
        make_ppo().learn(96, callback=FailAtStep(50, error))

    [run] = search_runs()
    assert run.info.status == "FAILED"
    assert "checkpoints/step_000000050.zip" in list_artifacts(run, "checkpoints")
    assert mlflow.active_run() is None


def test_a_server_that_does_not_answer_does_not_end_the_training(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow_sb3.autolog()
    store = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://127.0.0.1:9")

    with caplog.at_level(logging.WARNING, "mlflow"):
        model = make_ppo().learn(32)

    assert model.num_timesteps == 32
    assert "Encountered unexpected error during mlflow_sb3 autologging" in caplog.text
    mlflow.set_tracking_uri(store)


def test_an_environment_without_a_spec_is_logged_without_evaluations() -> None:
    mlflow_sb3.autolog()

    make_ppo(DummyVecEnv([OneStep])).learn(64)

    [run] = search_runs()
    assert run.info.status == "FINISHED"
    assert run.data.params["sb3/env"] == "unregistered"
    assert "eval/mean_reward" not in run.data.metrics
    assert len(list_models(run)) == 1


def test_checkpoint_arguments_decide_what_is_kept() -> None:
    mlflow_sb3.autolog(
        log_models=False,
        log_datasets=False,
        checkpoint_monitor="rollout/ep_rew_mean",
        checkpoint_mode="min",
        checkpoint_save_best_only=False,
        checkpoint_save_freq=64,
    )
    make_ppo().learn(128)
    mlflow_sb3.autolog(log_models=False, checkpoint=False)
    make_ppo().learn(128)

    first, second = search_runs()
    history = MlflowClient().get_metric_history(first.info.run_id, "rollout/ep_rew_mean")
    smallest = min(point.value for point in history)
    kept = [point.step for point in history if point.value == smallest]
    assert first.data.metrics["eval/kept_step"] == kept[0]
    assert len(list_artifacts(first, "checkpoints")) == 2
    assert list_datasets(first) == []
    assert "eval/mean_reward" not in first.data.metrics
    assert second.data.metrics["eval/kept_step"] == 128
    assert list_artifacts(second, "checkpoints") == []


def test_a_model_can_be_logged_without_signature_and_example() -> None:
    mlflow_sb3.autolog(log_model_signatures=False, log_input_examples=False, checkpoint=False)

    make_ppo().learn(32)

    [run] = search_runs()
    info = mlflow.models.get_model_info(f"models:/{list_models(run)[0]}")
    assert info.signature is None
    assert info.saved_input_example_info is None


def test_silent_hides_warnings(caplog: pytest.LogCaptureFixture) -> None:
    mlflow_sb3.autolog(silent=True, log_models=False)

    with caplog.at_level(logging.WARNING):
        make_ppo(DummyVecEnv([OneStep])).learn(32)

    assert [record for record in caplog.records if record.name.startswith("mlflow")] == []


def test_an_untested_version_of_sb3_is_a_warning_or_disables_autolog(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(autolog_module, "_END_VERSION", (2, 7))
    original = PPO.learn

    with caplog.at_level(logging.WARNING, "mlflow_sb3"):
        mlflow_sb3.autolog(disable_for_unsupported_versions=True)
    assert PPO.learn is original
    assert "was tested with stable-baselines3 2.7 up to, but not including, 2.7" in caplog.text

    mlflow_sb3.autolog()
    assert PPO.learn is not original


def test_an_algorithm_of_sb3_contrib_and_one_of_the_caller_are_logged() -> None:
    class MyPPO(PPO):
        """Algorithm of a user."""

    mlflow_sb3.autolog(log_models=False, checkpoint=False)

    TRPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, device="cpu").learn(32)
    MyPPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, device="cpu").learn(32)

    assert [run.data.params["sb3/algo"] for run in search_runs()] == ["trpo", "ppo"]


def test_autolog_has_the_arguments_of_mlflow() -> None:
    """Training arguments of a neural network, such as epochs, have no meaning for an agent."""
    theirs = set(inspect.signature(mlflow.pytorch.autolog).parameters)
    ours = set(inspect.signature(mlflow_sb3.autolog).parameters)

    assert theirs - ours == {
        "log_every_n_epoch",
        "log_every_n_step",
        "checkpoint_save_weights_only",
    }
