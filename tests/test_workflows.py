"""Run all steps, from train to evaluate, with agents of every kind."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner

from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.train import train
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.promotion import serving_check
from mlflow_sb3.registry.versions import find_version
from mlflow_sb3.training import training_run
from mlflow_sb3.training.checkpoint_selection import EPISODES_PER_CHECKPOINT, RACE
from tests.matrix import mark_cases

OFF_POLICY = {"learning_starts": 16, "buffer_size": 500, "batch_size": 16}
ON_POLICY = {"n_steps": 32, "batch_size": 32, "n_epochs": 2}
WORKFLOWS: dict[str, tuple[str, str, dict[str, Any], list[Any]]] = {
    "normalized": ("ppo", "CartPole-v1", {**ON_POLICY, "n_envs": 2, "normalize": True}, []),
    "normalized rewards": (
        "a2c",
        "CartPole-v1",
        {"normalize": {"norm_obs": False, "norm_reward": True}},
        [],
    ),
    "recurrent": (
        "ppo_lstm",
        "CartPole-v1",
        {**ON_POLICY, "normalize": True, "policy_kwargs": {"lstm_hidden_size": 8}},
        ["rl_zoo3.wrappers:MaskVelocityWrapper"],
    ),
    "masked": (
        "ppo_mask",
        "tests.environments:Valid-v0",
        ON_POLICY,
        [{"mlflow_sb3.wrappers:ActionMasks": {"method": "valid_actions"}}],
    ),
    "images": ("dqn", "tests.environments:Picture-v0", {**OFF_POLICY, "frame_stack": 2}, []),
    "dicts": ("qrdqn", "tests.environments:Shifted-v0", OFF_POLICY, []),
    "goals": (
        "dqn",
        "tests.environments:BitFlipping-v0",
        {
            **OFF_POLICY,
            "replay_buffer_class": "HerReplayBuffer",
            "replay_buffer_kwargs": {"n_sampled_goal": 2},
        },
        [],
    ),
    "frames": ("dqn", "CartPole-v1", {**OFF_POLICY, "frame_stack": 3}, []),
    "random search": ("ars", "CartPole-v1", {"n_delta": 2, "policy": "LinearPolicy"}, []),
    "trust region": ("trpo", "CartPole-v1", {"n_steps": 32, "batch_size": 32}, []),
}


def invoke(command: Any, **options: str) -> str:
    """Run a step with options and return the id of its run."""
    arguments = [
        text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)
    ]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    run = mlflow.last_active_run()
    assert run is not None
    return str(run.info.run_id)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("case", mark_cases(WORKFLOWS, ("normalized", "masked")))
def test_the_registered_agent_plays_like_the_selected_checkpoint(case: str) -> None:
    """Repeat the episodes that selected the checkpoint, with the same seeds."""
    algo, env_id, hyperparams, wrappers = WORKFLOWS[case]
    training_options = {
        "algo": algo,
        "env": env_id,
        "hyperparams": json.dumps(hyperparams),
        "wrappers": json.dumps(wrappers),
    }
    run_id = invoke(train, timesteps="96", preset="none", seed="4", **training_options)
    invoke(log_model, run_id=run_id, model_name="agent")
    invoke(promote, model_name="agent", episodes="30")
    invoke(evaluate, model_name="agent", version="1", episodes="3")

    count = sum(round_episodes for _, round_episodes in RACE)
    seeds = generate_episode_seeds(4, "choice", count, start=EPISODES_PER_CHECKPOINT)
    agent = registered_agent.load_agent(find_version("agent", number=1))
    episodes = agent.play(seeds)
    score = mlflow.get_run(run_id).data.metrics["eval/kept_mean_reward"]
    fresh = (
        mlflow.load_table("candidates.json", run_ids=[run_id])
        .query("kept")["fresh_episodes"]
        .item()
    )
    assert np.mean(episodes.returns[:fresh]) == pytest.approx(score)
    serving_check.check_servable(find_version("agent", number=1))


@pytest.mark.train
@pytest.mark.usefixtures("store")
def test_a_training_can_start_from_a_champion() -> None:
    hyperparams = json.dumps({**ON_POLICY, "normalize": True})
    first = invoke(train, algo="ppo", timesteps="64", preset="none", hyperparams=hyperparams)
    invoke(log_model, run_id=first, model_name="agent")
    invoke(promote, model_name="agent", rule="force", reason="first champion")

    second = invoke(
        train,
        algo="ppo",
        timesteps="64",
        from_model="models:/agent@champion",
        allow_pickle="true",
        hyperparams='{"learning_rate": 0.01}',
    )

    run = mlflow.get_run(second)
    assert run.data.params["sb3/preset"] == "models:/agent@champion"
    assert run.data.params["sb3/n_steps"] == "32"
    assert run.data.params["sb3/learning_rate"] == "0.01"
    assert run.data.metrics["eval/kept_step"] > 64
    assert run.inputs is not None
    assert [model.model_id for model in run.inputs.model_inputs] == [
        find_version("agent", alias="champion").model_id
    ]
    loaded = training_run.load_training_run(second).model
    assert loaded.get_vec_normalize_env() is not None
    invoke(log_model, run_id=second, model_name="agent")
    invoke(promote, model_name="agent", episodes="30")


@pytest.mark.train
@pytest.mark.usefixtures("store")
def test_all_steps_support_native_inference() -> None:
    run_id = invoke(
        train,
        algo="ppo",
        timesteps="64",
        preset="none",
        hyperparams=json.dumps({**ON_POLICY, "normalize": True}),
    )
    invoke(log_model, run_id=run_id, model_name="agent", inference="native")
    invoke(log_model, run_id=run_id, model_name="agent")
    trust = {"model_name": "agent", "allow_pickle": "true"}
    invoke(promote, version="1", rule="force", reason="first champion", **trust)
    invoke(promote, version="2", episodes="30", **trust)
    invoke(evaluate, episodes="5", **trust)

    versions = mlflow.MlflowClient().search_model_versions("name='agent'")
    assert {int(version.version): version.tags["mlflow_sb3.inference"] for version in versions} == {
        1: "native",
        2: "onnx",
    }
    native, exported = (
        registered_agent.load_agent(find_version("agent", number=number), allow_pickle=True)
        for number in (1, 2)
    )
    seeds = generate_episode_seeds(0, "evaluation", 10)
    assert native.play(seeds).returns.tolist() == exported.play(seeds).returns.tolist()
