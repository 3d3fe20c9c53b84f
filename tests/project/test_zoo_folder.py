"""Run the code of docs/rl_zoo3.md on folders as rl_zoo3 writes them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from tests import ROOT
from tests.project.conftest import Place
from tests.project.readme import example

pytestmark = pytest.mark.process


@pytest.fixture
def place(place: Place) -> Place:
    """A working folder in which the package can be imported, installed or not."""
    return replace(place, variables={"PYTHONPATH": str(ROOT)})


def write_zoo_folder(folder: Path, model: BaseAlgorithm, env_id: str) -> None:
    """Write the files that rl_zoo3 writes after a training."""
    training = folder / "logs" / type(model).__name__.lower() / f"{env_id}_1"
    (training / env_id).mkdir(parents=True)
    model.save(training / "best_model.zip")
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is not None:
        vec_normalize.save(str(training / env_id / "vecnormalize.pkl"))


def test_an_agent_of_rl_zoo3_is_logged(place: Place) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", learning_starts=10, device="cpu").learn(100)
    write_zoo_folder(place.folder, model, "CartPole-v1")

    done = place.run([sys.executable, "-c", example("zoo-folder")])

    assert done.returncode == 0, done.stderr
    assert "VecNormalize" not in done.stderr
    assert len(place.client.search_model_versions("name = 'cartpole-v1-dqn'")) == 1


def test_a_normalized_agent_of_rl_zoo3_is_logged_and_played(place: Place) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    write_zoo_folder(place.folder, A2C("MlpPolicy", env, n_steps=64).learn(64), "Pendulum-v1")

    logged = place.run([sys.executable, "-c", example("zoo-folder-normalized")])
    played = place.shell(example("zoo-folder-promote").replace("run .", f"run {ROOT}"))

    assert logged.returncode == 0, logged.stderr
    assert "statistics" not in logged.stderr
    assert "The mean return of pendulum-v1-a2c/1 is " in played.stdout, played.stderr
    assert "Mean reward: " in played.stdout
