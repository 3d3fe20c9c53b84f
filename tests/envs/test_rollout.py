from __future__ import annotations

from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

import mlflow_sb3
from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.envs.random_policy import RandomPolicy
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.inference.policy_protocol import Policy


@pytest.fixture(scope="module")
def pendulum_policy(tmp_path_factory: pytest.TempPathFactory) -> OnnxPolicy:
    """A SAC policy for Pendulum-v1, whose returns amplify rounding errors of the actions."""
    folder = tmp_path_factory.mktemp("sac") / "model"
    mlflow_sb3.save_model(
        SAC("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", learning_starts=32).learn(64), folder
    )
    return OnnxPolicy.load(folder / "agent")


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseAlgorithm, OnnxPolicy, str]:
    """An untrained RecurrentPPO agent, its policy, and the ``EnvSpec`` JSON of its environment."""
    spec_json = env_spec.compose_spec(
        "CartPole-v1", wrappers=["rl_zoo3.wrappers:MaskVelocityWrapper"]
    )
    folder = tmp_path_factory.mktemp("recurrent") / "model"
    hyperparams = {"policy_kwargs": {"lstm_hidden_size": 8, "n_lstm_layers": 2}}
    model = builder.build_algorithm("ppo_lstm", spec_json, hyperparams, seed=0)
    mlflow_sb3.save_model(model, folder, environment=spec_json)
    return model, OnnxPolicy.load(folder / "agent"), spec_json


def play(policy: Policy, spec_json: str, n_envs: int) -> Episodes:
    """Play 13 episodes."""
    seeds = generate_episode_seeds(1, "evaluation", 13)
    return rollout.play_episodes(
        policy, partial(env_spec.make_from_spec, spec_json), seeds, n_envs=n_envs
    )


@pytest.mark.parametrize("n_envs", [2, 5, 13, 64])
def test_the_result_is_the_same_for_any_number_of_environments(
    n_envs: int, saved: Path, pendulum_policy: OnnxPolicy, cartpole: str
) -> None:
    pendulum = env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))

    for policy, spec_json in (
        (mlflow_sb3.load_policy(str(saved)), cartpole),
        (pendulum_policy, pendulum),
    ):
        expected, episodes = play(policy, spec_json, 1), play(policy, spec_json, n_envs)
        assert episodes.returns.tolist() == expected.returns.tolist()
        assert episodes.lengths.tolist() == expected.lengths.tolist()


def test_episodes_equal_those_of_a_loop_with_sb3(ppo: PPO, saved: Path, cartpole: str) -> None:
    episodes = play(mlflow_sb3.load_policy(str(saved)), cartpole, 4)

    expected = [play_with_sb3(ppo, cartpole, seed) for seed in episodes.seeds.tolist()]
    assert list(zip(episodes.returns, episodes.lengths, strict=True)) == expected


@pytest.mark.train
@pytest.mark.parametrize("n_envs", [1, 3, 13])
def test_episodes_of_a_recurrent_policy_equal_those_of_a_loop_with_sb3(
    n_envs: int, recurrent: tuple[BaseAlgorithm, OnnxPolicy, str]
) -> None:
    model, policy, spec_json = recurrent

    episodes = play(policy, spec_json, n_envs)

    expected = [play_with_sb3(model, spec_json, seed) for seed in episodes.seeds.tolist()]
    assert list(zip(episodes.returns, episodes.lengths, strict=True)) == expected


def play_with_sb3(model: BaseAlgorithm, spec_json: str, seed: int) -> tuple[float, int]:
    """Play one episode with SB3's ``predict``, and return its return and its length."""
    total, length, state, is_over = 0.0, 0, None, False
    with env_spec.make_from_spec(spec_json) as env:
        observation, _ = env.reset(seed=seed)
        while not is_over:
            action, state = model.predict(
                observation, state, np.array([length == 0]), deterministic=True
            )
            observation, reward, terminated, truncated, _ = env.step(action)
            total, length = total + float(reward), length + 1
            is_over = terminated or truncated
    return total, length


def test_a_policy_with_masks_gets_those_of_the_environments(tmp_path: Path) -> None:
    spec_json = env_spec.compose_spec("tests.environments:Masked-v0")
    model = builder.build_algorithm("ppo_mask", spec_json, {}, seed=0)
    mlflow_sb3.save_model(model, tmp_path / "model", environment=spec_json)
    policy = OnnxPolicy.load(tmp_path / "model" / "agent")

    # The environment raises an error for an invalid action.
    episodes = rollout.play_episodes(policy, partial(env_spec.make_from_spec, spec_json), [1, 2, 3])

    assert episodes.lengths.tolist() == [3, 3, 3]


def test_the_callback_is_called_after_every_episode(saved: Path, cartpole: str) -> None:
    calls: list[None] = []

    rollout.play_episodes(
        mlflow_sb3.load_policy(str(saved)),
        partial(env_spec.make_from_spec, cartpole),
        [1, 2, 3],
        on_episode=lambda: calls.append(None),
    )

    assert len(calls) == 3


def test_episodes_are_concatenated_in_their_order() -> None:
    first = Episodes(np.array([1]), np.array([1.0]), np.array([4]))
    second = Episodes(np.array([2]), np.array([3.0]), np.array([8]))

    episodes = Episodes.empty() + first + second

    assert episodes.seeds.tolist() == [1, 2]
    assert episodes.returns.tolist() == [1.0, 3.0]
    assert episodes.lengths.tolist() == [4, 8]


def test_a_summary_has_the_mean_the_spread_and_the_range() -> None:
    summary = rollout.summarize_returns(
        Episodes(np.array([1, 2]), np.array([1.0, 3.0]), np.array([4, 8]))
    )

    assert str(summary) == "2.00 +/- 1.00"
    assert summary.to_metrics("evaluation/") == {
        "evaluation/episodes": 2.0,
        "evaluation/mean_return": 2.0,
        "evaluation/std_return": 1.0,
        "evaluation/min_return": 1.0,
        "evaluation/max_return": 3.0,
        "evaluation/mean_length": 6.0,
    }


def test_the_table_has_a_row_for_every_episode() -> None:
    table = Episodes(np.array([11, 12]), np.array([1.0, 3.0]), np.array([4, 8])).to_table()

    assert table == {"episode": [0, 1], "seed": [11, 12], "return": [1.0, 3.0], "length": [4, 8]}


def test_no_environment_is_rejected(pendulum_policy: OnnxPolicy, cartpole: str) -> None:
    with pytest.raises(ValueError, match="n_envs=0 is too small"):
        play(pendulum_policy, cartpole, 0)


def test_the_success_of_an_episode_is_that_of_its_last_step() -> None:
    spec_json = env_spec.compose_spec("tests.environments:BitFlipping-v0")
    env = env_spec.make_from_spec(spec_json)
    policy = RandomPolicy(env, seed=0, has_action_masks=False)
    seeds = generate_episode_seeds(1, "evaluation", 40)

    episodes = rollout.play_episodes(policy, partial(env_spec.make_from_spec, spec_json), seeds)

    assert episodes.successes is not None
    assert set(episodes.successes.tolist()) == {True, False}
    # A successful episode of BitFlipping-v0 ends with the reward 0. All other rewards are -1.
    expected = (episodes.returns > -episodes.lengths).tolist()
    assert episodes.successes.tolist() == episodes.to_table()["success"] == expected
    assert episodes.success_rate == pytest.approx(np.mean(expected))
    assert (episodes + episodes).success_rate == episodes.success_rate


def test_an_environment_without_success_has_no_success_rate(saved: Path, cartpole: str) -> None:
    episodes = play(mlflow_sb3.load_policy(str(saved)), cartpole, 13)

    assert episodes.success_rate is None
    assert "success" not in episodes.to_table()
