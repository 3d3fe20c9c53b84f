from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC

import mlflow_sb3
from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.inference.onnx_policy import OnnxPolicy


@pytest.fixture(scope="module")
def swinging(tmp_path_factory: pytest.TempPathFactory) -> OnnxPolicy:
    """SAC on Pendulum-v1, with continuous actions, in which a difference of the last bit grows."""
    folder = tmp_path_factory.mktemp("sac") / "model"
    mlflow_sb3.save_model(
        SAC("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", learning_starts=32).learn(64), folder
    )
    return OnnxPolicy.load(folder / "agent")


def play(policy: Any, description: str, n_envs: int) -> Episodes:
    seeds = generate_episode_seeds(1, "evaluation", 13)
    return rollout.play_episodes(
        policy, partial(env_spec.make_from_spec, description), seeds, n_envs=n_envs
    )


@pytest.mark.parametrize("n_envs", [2, 5, 13, 64])
def test_the_result_is_the_same_for_any_number_of_environments(
    n_envs: int, saved: Path, swinging: OnnxPolicy, cartpole: str
) -> None:
    pendulum = env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))

    for policy, description in (
        (mlflow_sb3.load_policy(str(saved)), cartpole),
        (swinging, pendulum),
    ):
        one, many = play(policy, description, 1), play(policy, description, n_envs)
        assert one.returns.tolist() == many.returns.tolist()
        assert one.lengths.tolist() == many.lengths.tolist()


def test_episodes_are_those_of_a_plain_loop_with_sb3(ppo: PPO, saved: Path, cartpole: str) -> None:
    played = play(mlflow_sb3.load_policy(str(saved)), cartpole, 4)

    for seed, total, length in zip(played.seeds, played.returns, played.lengths, strict=True):
        env, rewards, over = gymnasium.make("CartPole-v1"), [], False
        observation, _ = env.reset(seed=int(seed))
        while not over:
            action, _ = ppo.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(float(reward))
            over = terminated or truncated
        assert (sum(rewards), len(rewards)) == (total, length)


def test_progress_is_told_after_every_episode(saved: Path, cartpole: str) -> None:
    told: list[None] = []

    rollout.play_episodes(
        mlflow_sb3.load_policy(str(saved)),
        partial(env_spec.make_from_spec, cartpole),
        [1, 2, 3],
        on_episode=lambda: told.append(None),
    )

    assert len(told) == 3


def test_a_summary_is_what_a_hand_works_out() -> None:
    summary = rollout.summarize_returns(
        Episodes(np.array([1, 2]), np.array([1.0, 3.0]), np.array([4, 8]))
    )

    assert str(summary) == "2.00 +/- 1.00"
    assert summary.metrics("evaluation/") == {
        "evaluation/episodes": 2.0,
        "evaluation/mean_return": 2.0,
        "evaluation/std_return": 1.0,
        "evaluation/min_return": 1.0,
        "evaluation/max_return": 3.0,
        "evaluation/mean_length": 6.0,
    }


def test_the_table_has_a_row_for_every_episode() -> None:
    table = Episodes(np.array([11, 12]), np.array([1.0, 3.0]), np.array([4, 8])).table()

    assert table == {"episode": [0, 1], "seed": [11, 12], "return": [1.0, 3.0], "length": [4, 8]}


def test_no_environment_plays_nothing(swinging: OnnxPolicy, cartpole: str) -> None:
    with pytest.raises(ValueError, match="n_envs=0"):
        play(swinging, cartpole, 0)
