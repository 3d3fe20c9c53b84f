from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from mlflow.exceptions import MlflowException
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from mlflow_sb3.exchange import agent_loader
from mlflow_sb3.exchange.agent_folder import AgentFolder
from mlflow_sb3.flavor.vec_normalize import read_statistics
from tests.exchange.folders import write_zoo_folder


def find(archive: Path, algo: str = "ppo", statistics: Path | None = None) -> AgentFolder:
    return AgentFolder(archive, algo, "CartPole-v1", statistics)


@pytest.fixture
def archive(ppo: PPO, tmp_path: Path) -> Path:
    ppo.save(tmp_path / "agent.zip")
    return tmp_path / "agent.zip"


def test_an_agent_is_loaded_with_the_environments_of_its_training(
    tmp_path: Path, cartpole: str
) -> None:
    vec_env = VecNormalize(make_vec_env("CartPole-v1", n_envs=3), clip_obs=5.0)
    model = PPO("MlpPolicy", vec_env, n_steps=8, batch_size=8).learn(24)
    folder = write_zoo_folder(tmp_path, model, "CartPole-v1")
    statistics = folder / "CartPole-v1" / "vecnormalize.pkl"

    loaded = agent_loader.load_agent(
        find(folder / "CartPole-v1.zip", statistics=statistics), cartpole
    )

    normalize = loaded.get_vec_normalize_env()
    assert loaded.n_envs == 3
    assert normalize is not None
    assert normalize.clip_obs == 5.0
    assert read_statistics(loaded) == read_statistics(model)


def test_other_limits_of_observations_are_accepted_with_a_warning(
    tmp_path: Path, cartpole: str
) -> None:
    box = spaces.Box(-1, 1, (4,))
    env = TransformObservation(gymnasium.make("CartPole-v1"), lambda values: values, box)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8)
    model.save(tmp_path / "agent.zip")

    with pytest.warns(UserWarning, match="trained in another version of CartPole-v1"):
        loaded = agent_loader.load_agent(find(tmp_path / "agent.zip"), cartpole)

    observations = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert loaded.observation_space == gymnasium.make("CartPole-v1").observation_space
    np.testing.assert_array_equal(
        loaded.predict(observations, deterministic=True)[0],
        model.predict(observations, deterministic=True)[0],
    )


def test_other_actions_are_refused(archive: Path, tmp_path: Path, cartpole: str) -> None:
    env = gymnasium.make("Acrobot-v1")
    DQN("MlpPolicy", env).save(tmp_path / "dqn.zip")
    message = r"dqn\.zip cannot be loaded as dqn for CartPole-v1: .* Pass the algo, the env"

    with pytest.raises(MlflowException, match=message):
        agent_loader.load_agent(find(tmp_path / "dqn.zip", "dqn"), cartpole)


def test_another_algorithm_is_refused(archive: Path, cartpole: str) -> None:
    with pytest.raises(MlflowException, match=r"agent\.zip cannot be loaded as dqn for CartPole"):
        agent_loader.load_agent(find(archive, "dqn"), cartpole)


def test_other_files_are_refused(archive: Path, tmp_path: Path, cartpole: str) -> None:
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([]))

    for name in ("text.zip", "empty.zip"):
        with pytest.raises(MlflowException, match=rf"{name} is no agent of SB3"):
            agent_loader.load_agent(find(tmp_path / name), cartpole)
    with pytest.raises(MlflowException, match=r"list\.pkl cannot be loaded for CartPole-v1"):
        agent_loader.load_agent(find(archive, statistics=tmp_path / "list.pkl"), cartpole)
