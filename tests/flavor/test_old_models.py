"""Models that earlier versions of the project logged, with their whole package in ``code``.

The agents are PPOs with 8 hidden units on CartPole-v1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import gymnasium
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.promotion import promote, rollback
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions
from mlflow_sb3.registry import digest, versions
from mlflow_sb3.registry.model_version import DIGEST_TAG, Version
from mlflow_sb3.wrappers import FrameStack
from tests import ROOT
from tests.conftest import MakeOnce

DIGESTS = {
    "ea066bf": "f9d3634f54f4e7757784b3b5d4c99de5caf08c51b08db85e2535f1a687a933cd",
    "03ceaa5": "714708eb04fb9e70f8c36fd80a737b4d0b257efc86fc23f8b89350f1f0edd87a",
    "0.1.0": "dcbfeb5929d290d6b04f3ffdf9c7e484d5d882398c04eccd6e6acddf7a905060",
}
"""Digest of each model, by the commit or the release that logged it."""
N_STACK = {"ea066bf": 1, "03ceaa5": 1, "0.1.0": 2}
"""Number of observations that ``mlflow_sb3.wrappers:FrameStack`` stacks. 1 is no wrapper."""
LOAD_IN_NEW_PROCESS = """
import json, sys
import mlflow.pyfunc
import numpy as np

model = mlflow.pyfunc.load_model(sys.argv[1])
actions = model.predict(np.load(sys.argv[2])).tolist()
print(json.dumps([sys.modules["mlflow_sb3"].__file__, actions]))
"""


@pytest.fixture(scope="module", params=list(DIGESTS))
def release(request: pytest.FixtureRequest) -> str:
    """The commit or the release that logged the old model."""
    return str(request.param)


@pytest.fixture
def observations(release: str) -> NDArray[np.float64]:
    """Three observations of the old model."""
    return np.linspace(-0.2, 0.2, 12 * N_STACK[release]).reshape(3, -1)


@pytest.fixture
def folder(release: str, tmp_path: Path) -> Path:
    """The folder of the old model."""
    with zipfile.ZipFile(ROOT / "tests" / "data" / f"model-{release}.zip") as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def old_version(store: str, folder: Path) -> Version:
    """The old model as version 1 of the registered model `agent`."""
    return register(folder)


@pytest.fixture(scope="module")
def weak_folder(release: str, make_once: MakeOnce) -> Path:
    """The folder of an agent for the same environment that always pushes the cart to the left."""

    def build(folder: Path) -> None:
        env = gymnasium.make("CartPole-v1")
        if N_STACK[release] > 1:
            env = FrameStack(env, N_STACK[release], "last")
        model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": []}, device="cpu")
        weight, bias = model.policy.get_submodule("action_net").parameters()
        weight.data[:], bias.data[:] = 0.0, bias.data.new_tensor([1.0, 0.0])
        mlflow_sb3.save_model(model, folder / "model")

    return make_once(f"weak-agent-{N_STACK[release]}", build) / "model"


def register(folder: Path) -> Version:
    """Register a model with the digest of its files."""
    logged = mlflow.initialize_logged_model(name="agent")
    MlflowClient().log_model_artifacts(logged.model_id, str(folder))
    mlflow.finalize_logged_model(logged.model_id, "READY")
    tags = {DIGEST_TAG: digest.hash_folder(folder)}
    entity = mlflow.register_model(f"models:/{logged.model_id}", "agent", tags=tags)
    return versions.find_version("agent", number=int(entity.version))


def test_the_digest_of_an_old_model_is_still_the_same(release: str, folder: Path) -> None:
    assert digest.hash_folder(folder) == DIGESTS[release]


def test_the_policy_loads_and_has_a_file_format_without_a_schema(
    folder: Path, observations: NDArray[np.float64]
) -> None:
    policy = mlflow_sb3.load_policy(str(folder))

    assert policy.agent_info is not None
    assert policy.agent_info.algorithm == "stable_baselines3.ppo.ppo.PPO"
    assert "schema" not in json.loads((folder / "agent" / "agent.json").read_text())
    assert policy.predict(observations)[0].shape == (3,)


def test_the_algorithm_and_the_served_model_predict_what_the_policy_predicts(
    folder: Path, observations: NDArray[np.float64]
) -> None:
    expected = mlflow_sb3.load_policy(str(folder)).predict(observations)[0].tolist()

    model = mlflow_sb3.load_model(str(folder), device="cpu", allow_pickle=True)
    served = mlflow.pyfunc.load_model(str(folder))

    assert model.predict(observations.astype(np.float32), deterministic=True)[0].tolist() == (
        expected
    )
    assert served.predict(observations).tolist() == expected


@pytest.mark.process
def test_a_new_process_serves_an_old_model_with_the_code_of_the_model(
    folder: Path, tmp_path: Path, observations: NDArray[np.float64]
) -> None:
    np.save(tmp_path / "observations.npy", observations)

    completed = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            LOAD_IN_NEW_PROCESS,
            str(folder),
            str(tmp_path / "observations.npy"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    file, actions = json.loads(completed.stdout.splitlines()[-1])
    assert file == str(folder / "code" / "mlflow_sb3" / "__init__.py")
    assert actions == mlflow_sb3.load_policy(str(folder)).predict(observations)[0].tolist()


def test_an_old_model_plays_in_its_environment(release: str, old_version: Version) -> None:
    agent = registered_agent.load_agent(old_version)

    with env_spec.make_from_spec(agent.environment) as env:
        assert env.observation_space.shape == (4 * N_STACK[release],)
    assert agent.play(range(5)).returns.mean() > 50


@pytest.mark.train
def test_an_old_model_replaces_a_weaker_champion_and_can_be_rolled_back(
    old_version: Version, weak_folder: Path
) -> None:
    weak = register(weak_folder)
    with mlflow.start_run():
        promote.promote_version(weak, PromotionOptions(force_reason="the first champion"))
    with mlflow.start_run():
        record = promote.promote_version(old_version, PromotionOptions(gate=Gate(episodes=30)))
    champion = versions.find_version("agent", alias="champion")
    with mlflow.start_run():
        rollback.roll_back("agent")

    assert record.verdict == "promote"
    assert champion.number == old_version.number
    assert versions.find_version("agent", alias="champion").number == weak.number


@pytest.mark.train
def test_a_rollback_restores_an_old_model(old_version: Version, weak_folder: Path) -> None:
    with mlflow.start_run():
        promote.promote_version(old_version, PromotionOptions(force_reason="the first champion"))
        promote.promote_version(register(weak_folder), PromotionOptions(force_reason="try it"))
        rollback.roll_back("agent")

    assert versions.find_version("agent", alias="champion").number == old_version.number
