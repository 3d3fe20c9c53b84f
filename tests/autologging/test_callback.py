from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import mlflow
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecExtractDictObs, VecNormalize

import mlflow_sb3
from mlflow_sb3 import MlflowCallback
from mlflow_sb3.algorithms import hyperparam_check
from mlflow_sb3.training.loop import compute_weights_digest
from tests.environments import Spaces

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.train]


def make_ppo(env: Any = "CartPole-v1", **kwargs: Any) -> PPO:
    options: dict[str, Any] = {
        "n_steps": 32,
        "batch_size": 32,
        "n_epochs": 1,
        "seed": 0,
        "device": "cpu",
    }
    return PPO("MlpPolicy", env, **options | kwargs)


def read_run(callback: MlflowCallback) -> Run:
    assert callback.run_id is not None
    return MlflowClient().get_run(callback.run_id)


def list_artifacts(run: Run, folder: str | None = None) -> list[str]:
    return [file.path for file in MlflowClient().list_artifacts(run.info.run_id, folder)]


def read_steps(run: Run, key: str) -> list[int]:
    return [point.step for point in MlflowClient().get_metric_history(run.info.run_id, key)]


class FailAtStep(BaseCallback):
    """Raise an error at a timestep."""

    def __init__(self, step: int, error: BaseException) -> None:
        super().__init__()
        self._step, self._error = step, error

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._step:
            raise self._error
        return True


class RecordValue(BaseCallback):
    """Record a metric that decreases with each rollout, and the digests of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.digests: list[str] = []

    def _on_rollout_end(self) -> None:
        self.digests.append(compute_weights_digest(self.model))
        self.logger.record("custom/value", -len(self.digests))

    def _on_step(self) -> bool:
        return True


@pytest.fixture
def without_model() -> Iterator[MlflowCallback]:
    with MlflowCallback(log_model=False) as callback:
        yield callback


def test_a_run_has_the_parameters_of_train_the_metrics_and_the_system(
    without_model: MlflowCallback,
) -> None:
    model = make_ppo()

    model.learn(64, callback=without_model)

    run = read_run(without_model)
    defaults = hyperparam_check.resolve_hyperparams(
        "ppo",
        {"n_steps": 32, "batch_size": 32, "n_epochs": 1},
        model.observation_space,
    )
    params = run.data.params
    del defaults["stats_window_size"]  # SB3 keeps it under a private name
    assert {key: params[f"sb3/{key}"] for key in defaults} == defaults
    assert [params[f"sb3/{key}"] for key in ("env", "algo", "timesteps", "seed")] == [
        "CartPole-v1",
        "ppo",
        "64",
        "0",
    ]
    assert read_steps(run, "time/total_timesteps") == [32, 64]
    # SB3 logs the loss with the next rollout, and the callback logs the last one.
    assert read_steps(run, "train/loss") == [64, 64]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "train CartPole-v1 ppo seed 0")
    assert list_artifacts(run) == ["environment.json", "system.json"]
    system = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/system.json"))
    assert system["PyTorch"] == torch.__version__


def test_the_active_run_is_used_and_stays_open(without_model: MlflowCallback) -> None:
    with mlflow.start_run() as active:
        make_ppo().learn(32, callback=without_model)

        assert without_model.run_id == active.info.run_id
        assert read_run(without_model).info.status == "RUNNING"
        assert read_steps(read_run(without_model), "time/total_timesteps") == [32]
        mlflow.log_metric("after", 1)
    assert read_run(without_model).info.status == "FINISHED"


def test_each_learn_has_a_run_unless_it_continues_the_timesteps(
    without_model: MlflowCallback,
) -> None:
    model, run_ids = make_ppo(), []
    for resets in (True, True, False):
        model.learn(32, callback=without_model, reset_num_timesteps=resets)
        run_ids.append(without_model.run_id)

    assert len(set(run_ids)) == 2
    assert run_ids[1] == run_ids[2]
    assert read_steps(read_run(without_model), "time/total_timesteps") == [32, 64]
    assert len(model.logger.output_formats) == 0  # verbose=0, and the callback removed its own


def test_two_trainings_in_one_run_keep_the_first_parameters(without_model: MlflowCallback) -> None:
    with mlflow.start_run():
        make_ppo(seed=1).learn(32, callback=without_model)
        make_ppo(seed=2).learn(64, callback=without_model)

    run = read_run(without_model)
    assert (run.data.params["sb3/seed"], run.data.params["sb3/timesteps"]) == ("1", "32")
    assert len(read_steps(run, "time/total_timesteps")) == 3


def test_the_callback_does_not_change_the_weights() -> None:
    plain = make_ppo().learn(128)
    logged = make_ppo()

    logged.learn(128, callback=MlflowCallback(eval_freq=40, n_eval_episodes=2, gradient_norms=True))

    assert compute_weights_digest(plain) == compute_weights_digest(logged)


def test_evaluations_checkpoints_and_gradient_norms_are_logged() -> None:
    callback = MlflowCallback(
        eval_freq=50, n_eval_episodes=2, checkpoint_freq=64, gradient_norms=True, log_model=False
    )
    vec_env = make_vec_env("CartPole-v1", n_envs=4)

    make_ppo(vec_env, n_steps=8).learn(128, callback=CallbackList([callback]))

    run = read_run(callback)
    # The last rollout ends at step 128, and PPO then changes the weights once more.
    assert read_steps(run, "eval/mean_reward") == [52, 100, 128]
    assert list_artifacts(run, "checkpoints") == [
        "checkpoints/step_000000064.zip",
        "checkpoints/step_000000128.zip",
    ]
    assert 0 < run.data.metrics["gradient_norm/policy"] <= 0.5  # SB3 clips it to max_grad_norm
    assert run.data.metrics["eval/kept_step"] in (52, 100, 128)


def test_the_kept_agent_has_the_best_value_of_the_monitored_metric() -> None:
    values = RecordValue()
    callback = MlflowCallback(monitor="custom/value", registered_model_name="agent")
    model = make_ppo()

    model.learn(96, callback=[values, callback])

    run = read_run(callback)
    assert run.data.metrics["eval/kept_step"] == 32
    kept = mlflow_sb3.load_model("models:/agent@challenger", allow_pickle=True)
    assert compute_weights_digest(kept) == values.digests[0]
    assert compute_weights_digest(model) not in values.digests  # the caller has the last weights
    version = MlflowClient().get_model_version_by_alias("agent", "challenger")
    assert version.tags["mlflow_sb3.state"] == "challenger"
    assert version.tags["mlflow_sb3.env"] == "CartPole-v1"
    assert version.run_id == run.info.run_id
    action, _ = mlflow_sb3.load_policy("models:/agent/1").predict(np.zeros(4, np.float32))
    assert action in (0, 1)


def test_the_mode_min_keeps_the_smallest_value() -> None:
    callback = MlflowCallback(monitor="custom/value", mode="min", log_model=False)

    make_ppo().learn(96, callback=[RecordValue(), callback])

    assert read_run(callback).data.metrics["eval/kept_step"] == 96


def make_normalized() -> VecNormalize:
    return VecNormalize(make_vec_env("Pendulum-v1"))


@pytest.mark.parametrize(
    "make_eval_env",
    [
        lambda: None,
        lambda: "Pendulum-v1",
        lambda: gymnasium.make("Pendulum-v1"),
        lambda: make_vec_env("Pendulum-v1", seed=1),
        make_normalized,
    ],
    ids=["again", "id", "environment", "VecEnv", "VecNormalize"],
)
def test_every_kind_of_evaluation_environment_gets_normalized_observations_and_raw_rewards(
    make_eval_env: Any,
) -> None:
    callback = MlflowCallback(
        eval_env=make_eval_env(), eval_freq=64, n_eval_episodes=2, log_model=False
    )
    model = make_ppo(make_normalized())

    model.learn(64, callback=callback)

    run = read_run(callback)
    assert read_steps(run, "eval/mean_reward") == [64, 64]  # before and after the last update
    assert run.data.metrics["eval/mean_reward"] < -100  # a normalized return is above -100
    assert run.data.metrics["eval/mean_ep_length"] == 200


def test_evaluations_in_made_environments_play_the_same_episodes() -> None:
    rewards = []
    for eval_env in (None, "CartPole-v1"):
        callback = MlflowCallback(eval_env=eval_env, eval_freq=32, log_model=False)
        make_ppo().learn(32, callback=callback)
        rewards.append(read_run(callback).data.metrics["eval/mean_reward"])

    assert rewards[0] == rewards[1]


def test_weights_after_the_last_update_are_not_taken_for_evaluated_ones() -> None:
    values = RecordValue()
    callback = MlflowCallback(monitor="custom/value", mode="min", registered_model_name="agent")
    model = make_ppo()

    model.learn(96, callback=[values, callback])

    kept = mlflow_sb3.load_model("models:/agent/1", allow_pickle=True)
    assert read_run(callback).data.metrics["eval/kept_step"] == 96
    assert compute_weights_digest(kept) == values.digests[-1] != compute_weights_digest(model)


def test_gradient_norms_are_those_of_each_optimizer() -> None:
    callback = MlflowCallback(gradient_norms=True, log_model=False)
    model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, buffer_size=500, seed=0)
    expected = []

    def measure(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = optimizer.param_groups[0]["params"]
        expected.append(float(torch.nn.utils.get_total_norm([one.grad for one in parameters])))

    model.critic.optimizer.register_step_pre_hook(measure)
    model.learn(200, callback=callback)

    metrics = read_run(callback).data.metrics
    assert metrics["gradient_norm/critic"] == pytest.approx(np.mean(expected))
    assert {"gradient_norm/actor", "gradient_norm/ent_coef"} <= set(metrics)


def test_a_recipe_that_fails_does_not_affect_the_next_one() -> None:
    callbacks = [MlflowCallback(log_model=False, run_name=f"trial {n}") for n in range(2)]
    with pytest.raises(RuntimeError, match="broken"):
        make_ppo().learn(32, callback=[callbacks[0], FailAtStep(20, RuntimeError("broken"))])

    make_ppo(seed=1).learn(32, callback=callbacks[1])
    callbacks[0].close()

    assert [read_run(one).info.run_name for one in callbacks] == ["trial 0", "trial 1"]
    assert [read_run(one).info.status for one in callbacks] == ["FAILED", "FINISHED"]
    assert mlflow.active_run() is None


def test_a_model_that_cannot_be_saved_does_not_hide_the_error_of_the_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = make_ppo()
    vars(model)["lock"] = threading.Lock()
    with (
        pytest.raises(RuntimeError, match="broken"),
        caplog.at_level(logging.WARNING, "mlflow_sb3"),
        MlflowCallback() as callback,
    ):
        model.learn(32, callback=[callback, FailAtStep(20, RuntimeError("broken"))])

    assert read_run(callback).info.status == "FAILED"
    assert "No checkpoint was logged: TypeError" in caplog.text


def test_two_callbacks_in_one_run_are_refused() -> None:
    callbacks = [MlflowCallback(log_model=False) for _ in range(2)]
    with (
        mlflow.start_run(),
        pytest.raises(MlflowException, match="Another MlflowCallback logs to run"),
        callbacks[0],
    ):
        make_ppo().learn(32, callback=list(callbacks))


def test_another_model_with_the_same_callback_gets_its_own_run(
    without_model: MlflowCallback,
) -> None:
    make_ppo().learn(32, callback=without_model)
    first = without_model.run_id
    other = make_ppo(seed=1).learn(32)

    other.learn(32, callback=without_model, reset_num_timesteps=False)

    assert without_model.run_id != first


def test_action_masks_are_used_in_a_vec_env() -> None:
    make_env = partial(DummyVecEnv, [lambda: gymnasium.make("tests.environments:Masked-v0")])
    callback = MlflowCallback(eval_env=make_env(), eval_freq=32, log_model=False)
    model = MaskablePPO("MlpPolicy", make_env(), n_steps=32, batch_size=32, n_epochs=1, seed=0)

    model.learn(32, callback=callback)

    assert "eval/mean_reward" in read_run(callback).data.metrics


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"checkpoint_freq": 0}, "checkpoint_freq is 0. Use an integer of 1 or more"),
        ({"video_freq": -1}, "video_freq is -1"),
        ({"eval_freq": "epoch"}, "eval_freq is 'epoch'"),
        ({"n_eval_episodes": 0}, "n_eval_episodes is 0"),
        ({"mode": "maximum"}, "is 'maximum'. Use 'max' or 'min'"),
        ({"registered_model_name": "a/b"}, "'a/b' is not a valid name for a registered model"),
    ],
)
def test_invalid_settings_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        MlflowCallback(**setting)


def test_an_evaluation_environment_with_other_spaces_is_refused_before_learning() -> None:
    model = make_ppo()

    with pytest.raises(MlflowException, match="environment has the spaces"):
        model.learn(32, callback=MlflowCallback(eval_env="Pendulum-v1"))

    assert model.num_timesteps == 0
    assert mlflow.search_runs(output_format="list") == []


def test_a_metric_that_was_never_logged_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    callback = MlflowCallback(monitor="rollout/ep_rew_maen", log_model=False)

    with caplog.at_level(logging.WARNING, "mlflow_sb3"):
        make_ppo().learn(32, callback=callback)

    assert "The metric rollout/ep_rew_maen, which decides" in caplog.text


def test_videos_have_the_step_in_their_names() -> None:
    callback = MlflowCallback(video_freq=64, log_model=False)

    make_ppo().learn(96, callback=callback)

    run = read_run(callback)
    assert list_artifacts(run, "videos") == [
        "videos/step_000000064.mp4",
        "videos/step_000000096.mp4",
    ]
    content = Path(
        mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/videos/step_000000064.mp4")
    ).read_bytes()
    assert content[4:8] == b"ftyp"


def test_an_error_in_learn_ends_the_run_as_failed_with_a_checkpoint() -> None:
    model = make_ppo()
    with (
        pytest.raises(KeyboardInterrupt, match="stop"),
        MlflowCallback(eval_freq=20, n_eval_episodes=1) as callback,
    ):
        model.learn(96, callback=[callback, FailAtStep(50, KeyboardInterrupt("stop"))])

    run = read_run(callback)
    assert run.info.status == "FAILED"
    assert "checkpoints/step_000000050.zip" in list_artifacts(run, "checkpoints")
    assert mlflow.active_run() is None
    checkpoint = mlflow.artifacts.download_artifacts(
        f"{run.info.artifact_uri}/checkpoints/step_000000050.zip"
    )
    assert compute_weights_digest(PPO.load(checkpoint)) == compute_weights_digest(model)


def test_the_next_learn_ends_the_run_of_an_interrupted_one() -> None:
    callback = MlflowCallback(log_model=False)
    failing = FailAtStep(20, RuntimeError("broken environment"))
    with pytest.raises(RuntimeError, match="broken environment"):
        make_ppo().learn(32, callback=[callback, failing])
    first = read_run(callback)

    make_ppo().learn(32, callback=callback)

    assert first.info.status == "RUNNING"
    assert MlflowClient().get_run(first.info.run_id).info.status == "FAILED"
    assert read_run(callback).info.status == "FINISHED"


class FirstActionPolicy(BasePolicy):
    """Always takes action 0. Like the policies of SBX, it has no weights of PyTorch."""

    def __init__(self, observation_space: Any, action_space: Any, _: Any, **__: Any) -> None:
        super().__init__(observation_space, action_space)

    def _predict(self, observation: Any, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(len(observation), dtype=torch.int64)


class FirstAction(BaseAlgorithm):
    """An algorithm that learns nothing."""

    def _setup_model(self) -> None:
        self.policy = FirstActionPolicy(self.observation_space, self.action_space, None)

    def learn(self, total_timesteps: int, callback: Any = None, *_: Any, **__: Any) -> Any:
        total_timesteps, callback = self._setup_learn(total_timesteps, callback)
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            self.num_timesteps += 1
            callback.on_step()
        callback.on_training_end()
        return self


def test_an_algorithm_without_pytorch_is_logged_with_its_last_weights(
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback = MlflowCallback(eval_freq=20, n_eval_episodes=1)
    model = FirstAction(FirstActionPolicy, "CartPole-v1", learning_rate=0.0, device="cpu")
    model._setup_model()  # as the constructors of SB3's algorithms do

    with caplog.at_level(logging.WARNING, "mlflow_sb3"):
        model.learn(50, callback=callback)

    run = read_run(callback)
    assert run.info.status == "FINISHED"
    assert read_steps(run, "eval/mean_reward") == [20, 40, 50]
    assert run.data.metrics["eval/kept_step"] == 50
    assert list_artifacts(run, "checkpoints") == ["checkpoints/step_000000050.zip"]
    assert "has no weights of PyTorch, so it cannot be exported" in caplog.text


def test_an_agent_that_cannot_be_exported_is_kept_as_a_checkpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    space = spaces.Dict({"vector": spaces.Box(-1, 1, (2,))})
    env = DummyVecEnv([lambda: Spaces(space, spaces.Discrete(2))])
    callback = MlflowCallback(registered_model_name="agent")

    with caplog.at_level(logging.WARNING, "mlflow_sb3"):
        make_ppo(VecExtractDictObs(env, "vector")).learn(32, callback=callback)

    run = read_run(callback)
    assert run.info.status == "FINISHED"
    assert list_artifacts(run, "checkpoints") == ["checkpoints/step_000000032.zip"]
    assert "The agent was not logged as a model" in caplog.text
    assert "VecExtractDictObs, which cannot be exported" in caplog.text


def test_an_off_policy_algorithm_is_logged(without_model: MlflowCallback) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", learning_starts=10, train_freq=(1, "episode"), seed=0)

    model.learn(300, callback=without_model, log_interval=1)

    run = read_run(without_model)
    assert run.data.params["sb3/train_freq"] == '[1, "episode"]'
    assert run.data.params["sb3/algo"] == "dqn"
    assert len(read_steps(run, "rollout/ep_rew_mean")) > 2
