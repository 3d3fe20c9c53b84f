"""Import agents that rl_zoo3 trained, export them, and play them with rl_zoo3."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import mlflow_sb3
from mlflow_sb3.algorithms import algorithms, builder
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.envs import env_spec
from mlflow_sb3.inference.policy_protocol import AgentPolicy
from tests import ROOT
from tests.cli.commands import succeed
from tests.conftest import MakeOnce
from tests.exchange.folders import enjoy, run_zoo
from tests.project.conftest import Place
from tests.project.readme import example

pytestmark = pytest.mark.process

STEPS = 600
"""Environment steps that ``enjoy`` and ``play`` take."""
SEED = 3
AGENTS = {"CartPole-v1": "ppo", "Pendulum-v1": "a2c"}
"""Algorithms by environment. rl_zoo3 trains the second agent with ``VecNormalize``."""


@pytest.fixture(scope="session")
def zoo_logs(make_once: MakeOnce) -> Path:
    """The folder of two trainings of rl_zoo3, as its command writes it."""

    def build(folder: Path) -> None:
        for env_id, algo in AGENTS.items():
            options = ["--algo", algo, "--env", env_id, "-n", "2000", "-f", str(folder)]
            run_zoo("train", *options, "--eval-freq", "500", "--eval-episodes", "2")

    return make_once("zoo-logs", build)


def play(policy: AgentPolicy) -> tuple[list[float], list[Any], list[Any]]:
    """Play as ``enjoy`` does: one seed for all episodes.

    Returns:
        The returns of the finished episodes, and the observation and the action of each step.
    """
    returns: list[float] = []
    observations, actions, total = [], [], 0.0
    state, starts = None, np.ones(1, bool)
    with env_spec.make_from_spec(str(policy.environment)) as env:
        observation, _ = env.reset(seed=SEED)
        for _ in range(STEPS):
            batch = (
                {key: value[None] for key, value in observation.items()}
                if isinstance(observation, dict)
                else np.asarray(observation)[None]
            )
            action, state = policy.predict(batch, state, starts)
            observations.append(batch)
            actions.append(action)
            observation, reward, terminated, truncated, _ = env.step(action[0])
            total += float(reward)
            starts[0] = terminated or truncated
            if starts[0]:
                returns.append(total)
                observation, _ = env.reset()
                total = 0.0
    return returns, observations, actions


def load_exported(
    folder: Path, algo: str, env_id: str
) -> tuple[BaseAlgorithm, VecNormalize | None]:
    """Load the exported files with SB3 alone."""
    training = folder / algo / f"{env_id}_1"
    statistics = training / env_id / "vecnormalize.pkl"
    vec_env = make_vec_env(env_id)
    return (
        algorithms.get_algorithm_class(algo).load(training / f"{env_id}.zip", device="cpu"),
        VecNormalize.load(str(statistics), vec_env) if statistics.exists() else None,
    )


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("env_id", "algo"), AGENTS.items())
def test_an_agent_of_rl_zoo3_is_imported_promoted_exported_and_played(
    env_id: str, algo: str, zoo_logs: Path, tmp_path: Path
) -> None:
    mlflow_sb3.import_agent(
        zoo_logs / algo / f"{env_id}_1", registered_model_name="agent", allow_pickle=True
    )
    succeed(promote, "--model-name", "agent", "--rule", "force", "--reason", "from rl_zoo3")
    folder = mlflow_sb3.export_agent("models:/agent@champion", tmp_path / "exported")

    returns, observations, actions = play(mlflow_sb3.load_policy("models:/agent@champion"))
    model, vec_normalize = load_exported(folder, algo, env_id)
    batch = np.concatenate(observations)
    normalized = batch if vec_normalize is None else vec_normalize.normalize_obs(batch)
    expected, _ = model.predict(normalized, deterministic=True)

    assert (vec_normalize is not None) == (env_id == "Pendulum-v1")
    np.testing.assert_allclose(np.concatenate(actions), expected, rtol=0, atol=1e-5)
    assert enjoy(folder, algo, env_id, steps=STEPS) == pytest.approx(returns, abs=0.02)
    assert len(returns) >= 3


@pytest.mark.usefixtures("store")
def test_the_last_agent_of_rl_zoo3_gets_the_rewards_of_the_original(
    zoo_logs: Path, tmp_path: Path
) -> None:
    last = zoo_logs / "a2c" / "Pendulum-v1_1" / "Pendulum-v1.zip"

    info = mlflow_sb3.import_agent(last, allow_pickle=True)
    returns, _, _ = play(mlflow_sb3.load_policy(info.model_uri))

    assert enjoy(zoo_logs, "a2c", "Pendulum-v1", steps=STEPS) == pytest.approx(returns, abs=0.02)


STACK = {"mlflow_sb3.wrappers:FrameStack": {"n_stack": 3}}
SCALE = {"tests.environments:ScaleObservation": {"factor": 2.0}}
SMALL = {"n_steps": 64, "batch_size": 64}
HER = {"replay_buffer_class": "HerReplayBuffer", "buffer_size": 500, "learning_starts": 20}
OTHER_AGENTS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "frames": ("ppo", "CartPole-v1", SMALL, {"wrappers": [SCALE, STACK]}),
    "normalized frames": (
        "ppo",
        "CartPole-v1",
        {**SMALL, "normalize": True},
        {"wrappers": [STACK]},
    ),
    "arguments": ("ppo", "Pendulum-v1", SMALL, {"kwargs": {"g": 1.0, "max_episode_steps": 50}}),
    "shifted actions": ("ppo", "tests.environments:Shifted-v0", SMALL, {}),
    "memory": ("ppo_lstm", "CartPole-v1", SMALL, {}),
    "goals": ("dqn", "tests.environments:BitFlipping-v0", HER, {}),
}


@pytest.mark.parametrize("name", OTHER_AGENTS)
def test_enjoy_gets_the_rewards_of_our_policy(name: str, tmp_path: Path) -> None:
    algo, env_id, hyperparams, changes = OTHER_AGENTS[name]
    environment = env_spec.compose_spec(env_id, **changes)
    model = builder.build_algorithm(algo, environment, hyperparams, seed=0).learn(128)
    mlflow_sb3.save_model(model, tmp_path / "model", environment=environment)

    folder = mlflow_sb3.export_agent(str(tmp_path / "model"), tmp_path / "exported")

    returns, _, _ = play(mlflow_sb3.load_policy(str(tmp_path / "model")))
    packages = ["--gym-packages", "tests.environments"]
    played = enjoy(folder, algo, env_id.rpartition(":")[2], *packages, steps=STEPS)
    assert played == pytest.approx(returns, abs=0.02)
    assert len(returns) >= 3


@pytest.mark.usefixtures("store")
def test_rl_zoo3_finds_every_file_in_a_repository_of_hugging_face(
    zoo_logs: Path, tmp_path: Path
) -> None:
    info = mlflow_sb3.import_agent(zoo_logs / "a2c" / "Pendulum-v1_1", allow_pickle=True)
    folder = mlflow_sb3.export_agent(info.model_uri, tmp_path / "exported")
    # A cache of huggingface_hub, as it is after a download of the uploaded folder.
    repository = tmp_path / "hub" / "models--me--a2c-Pendulum-v1"
    commit = hashlib.sha1(b"commit", usedforsecurity=False).hexdigest()
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    variables = {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "TRUST_REMOTE_CODE": "True",
    }

    run_zoo(
        "load_from_hub",
        *("--algo", "a2c", "--env", "Pendulum-v1", "-orga", "me", "-f", str(tmp_path / "logs")),
        variables=variables,
    )

    downloaded = enjoy(tmp_path / "logs", "a2c", "Pendulum-v1", steps=STEPS)
    assert len(downloaded) == 3
    assert downloaded == enjoy(folder, "a2c", "Pendulum-v1", steps=STEPS)


def test_the_commands_of_the_page_import_and_export_an_agent(zoo_logs: Path, place: Place) -> None:
    (place.folder / "logs").symlink_to(zoo_logs)
    here = replace(place, variables={"PYTHONPATH": str(ROOT)})

    imported = here.run([sys.executable, "-c", example("zoo-import")])
    stepped = here.shell(example("zoo-import-step").replace("run .", f"run {ROOT}"))
    exported = here.shell(example("zoo-export").replace("run .", f"run {ROOT}"))

    assert imported.returncode == 0, imported.stderr
    assert "Registered pendulum-v1-a2c/2 as the challenger" in stepped.stdout, stepped.stderr
    assert exported.returncode == 0, exported.stderr
    assert f"Exported models:/pendulum-v1-a2c/1 to {place.folder}/exported" in exported.stdout
    assert exported.stdout.count("Episode Reward: ") == 5
    assert [run.info.status for run in here.runs()] == ["FINISHED"] * 3
