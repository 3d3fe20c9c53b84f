"""Tests of the step train."""

from __future__ import annotations

import json

import mlflow
import pytest

from mlflow_sb3.cli.train import train
from mlflow_sb3.envs import env_spec
from tests.cli.commands import TINY_TRAINING, assert_fails, invoke, list_artifacts, succeed


@pytest.mark.usefixtures("store")
def test_training_logs_parameters_metrics_checkpoints_and_the_agent() -> None:
    run = succeed(train, *TINY_TRAINING)

    assert run.info.status == "FINISHED"
    assert run.data.params["sb3/n_steps"] == "64"
    assert run.data.params["sb3/learning_rate"] == "0.0003"
    assert {"rollout/ep_rew_mean", "eval/mean_reward", "eval/kept_step"} <= set(run.data.metrics)
    assert list_artifacts(run, "agent") == {"agent/agent.zip", "agent/environment.json"}
    table = mlflow.load_table("candidates.json", run_ids=[run.info.run_id])
    assert table["kept"].sum() == 1


@pytest.mark.usefixtures("store")
def test_hyperparams_override_single_keys_of_the_preset() -> None:
    run = succeed(train, "--timesteps", "300", "--hyperparams", '{"batch_size": 32}')

    assert run.data.params["sb3/preset"] == "rl_zoo3/hyperparams/dqn.yml#CartPole-v1"
    assert run.data.params["sb3/batch_size"] == "32"
    assert run.data.params["sb3/target_update_interval"] == "10"


@pytest.mark.usefixtures("store")
def test_the_run_records_the_environment_with_its_wrappers() -> None:
    options = {
        "--algo": "ppo",
        "--preset": "none",
        "--hyperparams": '{"n_steps": 64, "n_timesteps": 64, "frame_stack": 2}',
        "--env-kwargs": '{"max_episode_steps": 20}',
        "--wrappers": '["rl_zoo3.wrappers:MaskVelocityWrapper"]',
    }

    run = succeed(train, *(part for option in options.items() for part in option))

    assert run.data.params["sb3/timesteps"] == "64"
    assert run.data.params["sb3/preset"] == "stable-baselines3 defaults"
    assert run.data.params["sb3/env_kwargs"] == '{"max_episode_steps": 20}'
    assert json.loads(run.data.params["sb3/wrappers"]) == [
        "rl_zoo3.wrappers:MaskVelocityWrapper",
        {"mlflow_sb3.wrappers:FrameStack": {"n_stack": 2}},
    ]
    spec_json = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/agent/environment.json")
    with env_spec.make_from_spec(spec_json) as env:
        assert env.observation_space.shape == (8,)
        assert env.spec is not None
        assert env.spec.max_episode_steps == 20


@pytest.mark.usefixtures("store")
def test_timesteps_override_the_hyperparameter_n_timesteps() -> None:
    run = succeed(train, *TINY_TRAINING, "--hyperparams", '{"n_steps": 64, "n_timesteps": 1000000}')

    assert run.data.params["sb3/timesteps"] == "64"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--env", "Nope-v1"], 1, "environment 'Nope-v1' cannot be made"),
        (["--env", "nowhere:Nope-v1"], 1, "No module named 'nowhere'"),
        (["--algo", "alphazero"], 1, "Unknown algorithm 'alphazero'. Choose one of a2c"),
        (["--algo", "sac", "--preset", "none"], 1, "sac does not support the action space"),
        (["--env", "Pendulum-v1"], 1, "dqn does not support the action space Box"),
        (["--env", "Blackjack-v1"], 1, 'wrappers=["gymnasium.wrappers:FlattenObservation"]'),
        (["--timesteps", "0"], 2, "'--timesteps': 0 is not in the range"),
        (["--hyperparams", "{bad"], 2, "'{bad' is not valid JSON"),
        (["--hyperparams", "[1]"], 2, "'[1]' is not a JSON object"),
        (["--hyperparams", '{"lerning_rate": 1}'], 1, "dqn has no hyperparameter 'lerning_rate'"),
        (["--hyperparams", '{"learning_rate": "fast"}'], 1, "dqn cannot be built with these"),
        (["--hyperparams", '{"policy": "LinearPolicy"}'], 1, "dqn has no policy 'LinearPolicy'"),
        (["--hyperparams", '{"frame_stack": "four"}'], 1, "n_stack='four'"),
        (
            ["--hyperparams", '{"env_wrapper": "nowhere.Nothing"}'],
            1,
            "wrapper nowhere:Nothing cannot be imported",
        ),
        (["--hyperparams", '{"normalize": "yes"}'], 1, "normalize is 'yes'. Use true, false"),
        (
            ["--hyperparams", '{"replay_buffer_class": "HerReplayBuffer"}'],
            1,
            "HerReplayBuffer needs an environment with goals",
        ),
        (["--wrappers", '["nowhere:Nothing"]'], 1, "No module named 'nowhere'"),
        (["--wrappers", '["tests.environments:MisnamedArgument"]'], 1, "Rename the parameter"),
        (
            ["--wrappers", '[{"tests.environments:ScaleObservation": {"factr": 1}}]'],
            1,
            "unexpected keyword argument 'factr'",
        ),
        (["--wrappers", "nowhere:Nothing"], 2, "'nowhere:Nothing' is not valid JSON"),
        (["--wrappers", '{"a:B": {}}'], 2, "is not a JSON list"),
        (["--env-kwargs", '{"gravity": 1}'], 1, 'cannot be made with {"gravity": 1}'),
        (["--env-kwargs", "[]"], 2, "'[]' is not a JSON object"),
        (["--algo", "ppo_mask"], 1, "ppo_mask needs an environment with a method action_masks()"),
        (
            ["--algo", "ars", "--env", "tests.environments:BitFlipping-v0"],
            1,
            "ars has no MultiInputPolicy for",
        ),
    ],
)
@pytest.mark.usefixtures("store")
def test_invalid_options_are_refused(arguments: list[str], code: int, message: str) -> None:
    assert_fails(invoke(train, *arguments), code, message)


@pytest.mark.usefixtures("store")
def test_an_unknown_run_cannot_be_resumed() -> None:
    assert_fails(invoke(train, "--resume", "0" * 32), 1, "not found")
