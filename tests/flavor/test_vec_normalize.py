from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import mlflow_sb3
from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor.vec_normalize import read_statistics, wrap_vec_env
from mlflow_sb3.inference.onnx_policy import OnnxPolicy


def train(env_id: str, **settings: Any) -> PPO:
    vec_env = VecNormalize(make_vec_env(env_id, n_envs=2, seed=0), **settings)
    return PPO("MlpPolicy", vec_env, n_steps=64, seed=0, device="cpu").learn(512)


@pytest.fixture(scope="module")
def pendulum() -> PPO:
    return train("Pendulum-v1")


def save(model: BaseAlgorithm, folder: Path) -> OnnxPolicy:
    mlflow_sb3.save_model(model, folder)
    return OnnxPolicy.load(folder / "agent")


def evaluate_with_sb3(model: BaseAlgorithm, env_id: str, seeds: list[int]) -> list[float]:
    """Return the returns of SB3's ``evaluate_policy`` on the normalized environment, by seed."""
    statistics = read_statistics(model)
    assert statistics is not None
    env = wrap_vec_env(DummyVecEnv([lambda: gymnasium.make(env_id)]), statistics)
    env.training, env.norm_reward = False, False
    returns: list[float] = []
    for seed in seeds:
        env.seed(seed)
        episode, _ = evaluate_policy(
            model, env, n_eval_episodes=1, return_episode_rewards=True, warn=False
        )
        assert isinstance(episode, list)
        returns += episode
    return returns


@pytest.mark.train
@pytest.mark.parametrize(("env_id", "tolerance"), [("CartPole-v1", 0.0), ("Pendulum-v1", 1e-4)])
def test_returns_equal_those_of_sb3_on_the_normalized_environment(
    env_id: str, tolerance: float, tmp_path: Path
) -> None:
    model = train(env_id)
    policy = save(model, tmp_path / "model")
    seeds = generate_episode_seeds(0, "evaluation", 20)

    played = rollout.play_episodes(policy, lambda: gymnasium.make(env_id), seeds)

    assert played.returns == pytest.approx(
        evaluate_with_sb3(model, env_id, seeds), rel=tolerance, abs=0
    )
    assert len(set(played.returns)) > 5


def test_a_model_without_its_statistics_causes_a_warning(pendulum: PPO, tmp_path: Path) -> None:
    pendulum.save(tmp_path / "agent.zip")
    loaded = PPO.load(tmp_path / "agent.zip")
    plain = PPO("MlpPolicy", "Pendulum-v1", n_steps=64, device="cpu").learn(64)

    with pytest.warns(UserWarning, match=r"has no statistics.*PPO\.load\(path, env=VecNormalize"):
        mlflow_sb3.save_model(loaded, tmp_path / "without")
    for name, model in {"with": pendulum, "plain": plain}.items():
        with warnings.catch_warnings(action="error", category=UserWarning):
            mlflow_sb3.save_model(model, tmp_path / name)


@pytest.mark.parametrize(
    "settings", [{"clip_obs": 0.5}, {"norm_obs": False}, {"norm_reward": False, "epsilon": 0.1}]
)
def test_the_graph_has_the_settings_of_vec_normalize(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model = train("Pendulum-v1", **settings)
    observations = np.random.default_rng(0).normal(0, 3, (64, 3)).astype(np.float32)
    vec_normalize = model.get_vec_normalize_env()
    assert vec_normalize is not None

    actions, _ = save(model, tmp_path / "model").predict(observations)

    expected, _ = model.predict(
        np.asarray(vec_normalize.normalize_obs(observations)), deterministic=True
    )
    assert actions == pytest.approx(expected, abs=4e-5)


def test_saving_does_not_change_vec_normalize(pendulum: PPO, tmp_path: Path) -> None:
    before = json.dumps(read_statistics(pendulum))
    vec_normalize = pendulum.get_vec_normalize_env()
    assert vec_normalize is not None

    save(pendulum, tmp_path / "model")

    assert json.dumps(read_statistics(pendulum)) == before
    assert vec_normalize.training
    assert pendulum.get_vec_normalize_env() is vec_normalize


def test_a_loaded_agent_continues_with_its_statistics(pendulum: PPO, tmp_path: Path) -> None:
    save(pendulum, tmp_path / "model")

    loaded = mlflow_sb3.load_model(
        str(tmp_path / "model"),
        env=make_vec_env("Pendulum-v1", n_envs=2),
        device="cpu",
        allow_pickle=True,
    )

    assert read_statistics(loaded) == read_statistics(pendulum)
    before = read_statistics(loaded)
    loaded.learn(128, reset_num_timesteps=False)
    assert read_statistics(loaded) != before


def test_a_vec_normalize_of_the_caller_is_kept(pendulum: PPO, tmp_path: Path) -> None:
    save(pendulum, tmp_path / "model")
    own = VecNormalize(make_vec_env("Pendulum-v1"), clip_obs=3.0)

    loaded = mlflow_sb3.load_model(
        str(tmp_path / "model"), env=own, device="cpu", allow_pickle=True
    )

    assert loaded.get_vec_normalize_env() is own


def test_changed_statistics_are_refused(pendulum: PPO, tmp_path: Path) -> None:
    save(pendulum, tmp_path / "model")
    file = tmp_path / "model" / "agent" / "vec_normalize.json"
    file.write_text(file.read_text().replace('"epsilon": 1e-08', '"epsilon": 1e-03'))

    with pytest.raises(
        MlflowException, match=r"vec_normalize\.json has changed since it was saved"
    ):
        mlflow_sb3.load_model(
            str(tmp_path / "model"), env=make_vec_env("Pendulum-v1"), allow_pickle=True
        )


def test_images_and_dicts_are_normalized_inside_the_graph(tmp_path: Path) -> None:
    settings = {"norm_obs_keys": ["vector"]}
    description = env_spec.compose_spec(
        "tests.environments:Named-v0", kwargs={"observations": "Dict", "actions": "Box"}
    )
    model = builder.build_algorithm(
        "ppo", description, {"n_steps": 32, "batch_size": 32, "normalize": settings}, seed=0
    ).learn(32)

    mlflow_sb3.save_model(model, tmp_path / "model", environment=description)

    info = OnnxPolicy.load(tmp_path / "model" / "agent").agent_info
    assert info is not None
    assert info.parity is not None
    assert info.parity.max_difference <= 1e-5
    statistics = read_statistics(model)
    assert statistics is not None
    assert list(statistics["observations"]) == ["vector"]


def test_native_inference_normalizes_observations(pendulum: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(pendulum, tmp_path / "model", inference="native")
    observations = np.random.default_rng(0).normal(0, 1, (64, 3)).astype(np.float32)
    predict: Callable[..., Any] = partial(
        mlflow_sb3.load_policy(str(tmp_path / "model"), allow_pickle=True).predict, observations
    )

    exported = save(pendulum, tmp_path / "exported")

    assert predict()[0] == pytest.approx(exported.predict(observations)[0], abs=4e-5)


def test_loading_without_env_warns_about_the_missing_normalization(
    pendulum: PPO, tmp_path: Path
) -> None:
    save(pendulum, tmp_path / "model")

    with pytest.warns(
        UserWarning,
        match=r"was trained with VecNormalize\. Pass env to load_model",
    ):
        mlflow_sb3.load_model(str(tmp_path / "model"), device="cpu", allow_pickle=True)


@pytest.mark.train
def test_images_are_normalized_before_they_are_transposed(tmp_path: Path) -> None:
    description = env_spec.compose_spec("tests.environments:Picture-v0")
    hyperparams = {"n_steps": 8, "batch_size": 8, "normalize": True, "policy": "MlpPolicy"}
    model = builder.build_algorithm("ppo", description, hyperparams, seed=0).learn(8)
    mlflow_sb3.save_model(model, tmp_path / "model", environment=description)

    loaded = mlflow_sb3.load_model(
        str(tmp_path / "model"),
        env=env_spec.make_from_spec(description),
        device="cpu",
        allow_pickle=True,
    )

    assert read_statistics(loaded) == read_statistics(model)
