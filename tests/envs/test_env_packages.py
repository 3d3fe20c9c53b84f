from __future__ import annotations

import json
from typing import Any

import pytest
from gymnasium.error import DependencyNotInstalled
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.train import train
from mlflow_sb3.envs import env_packages, env_spec
from mlflow_sb3.envs.env_packages import EnvPackage
from tests.cli.commands import list_artifacts, succeed

ON_POLICY = {"n_steps": 32, "batch_size": 32}
OFF_POLICY = {"learning_starts": 16, "batch_size": 16, "buffer_size": 500}
TRAININGS: dict[str, dict[str, Any]] = {
    "ALE/Pong-v5": {
        "algo": "dqn",
        "hyperparams": OFF_POLICY | {"policy": "CnnPolicy"},
        "wrappers": [{"gymnasium.wrappers:AtariPreprocessing": {"grayscale_newaxis": True}}],
        "env_kwargs": {"frameskip": 1},
    },
    "MiniGrid-Empty-5x5-v0": {
        "algo": "ppo",
        "hyperparams": ON_POLICY | {"policy": "MlpPolicy"},
        "wrappers": ["minigrid.wrappers:ImgObsWrapper"],
    },
    "highway-fast-v0": {"algo": "dqn", "hyperparams": OFF_POLICY},
    "Ant-v5": {"algo": "ppo", "hyperparams": ON_POLICY},
    "FetchReach-v4": {"algo": "sac", "hyperparams": OFF_POLICY},
}


@pytest.mark.parametrize(
    ("env_id", "module"),
    [
        ("ALE/Pong-v5", "ale_py"),
        ("PongNoFrameskip-v4", "ale_py"),
        ("BabyAI-GoToObj-v0", "minigrid"),
        ("two-way-v0", "highway_env"),
        ("FetchReachDense-v4", "gymnasium_robotics"),
        ("CartPole-v1", None),
    ],
)
def test_the_id_decides_the_package(env_id: str, module: str | None) -> None:
    found = [package.module for package in env_packages.PACKAGES if package.has(env_id)]

    assert found == ([] if module is None else [module])


def test_a_missing_package_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = EnvPackage("Nowhere-.+", "nowhere_envs", "nowhere-envs")
    monkeypatch.setattr(env_packages, "PACKAGES", (nowhere,))

    with pytest.raises(
        MlflowException,
        match=r"^environment 'Nowhere-v0' is in the package nowhere-envs, which is not "
        r"installed\. Install it: pip install nowhere-envs$",
    ):
        env_spec.make_env("Nowhere-v0")


@pytest.mark.envs
@pytest.mark.usefixtures("store")
# MuJoCo 3.3 without OpenGL raises an error when its renderer is deleted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("env_id", TRAININGS)
def test_an_environment_goes_through_all_steps_by_its_usual_id(env_id: str) -> None:
    options = {"env_kwargs": {}, "wrappers": []} | TRAININGS[env_id]
    options["env_kwargs"] |= {"max_episode_steps": 10}
    values = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in options.items()
    }

    trained = succeed(
        train,
        *("--env", env_id, "--timesteps", "64", "--preset", "none"),
        *("--selection", "none", "--eval-episodes", "1"),
        *(part for key, value in values.items() for part in (f"--{key.replace('_', '-')}", value)),
    )
    succeed(log_model, "--run-id", trained.info.run_id, "--model-name", "agent")
    promoted = succeed(promote, "--model-name", "agent", "--version", "1", "--episodes", "2")
    run = succeed(
        evaluate,
        *("--model-name", "agent", "--version", "1", "--episodes", "2", "--video", "true"),
    )

    assert promoted.data.tags["mlflow_sb3.verdict"] in ("promote", "inconclusive", "reject", "tie")
    assert run.data.metrics["evaluation/episodes"] == 2
    assert run.data.metrics["evaluation/mean_length"] <= 10
    assert ("evaluation/success_rate" in run.data.metrics) == (env_id == "FetchReach-v4")
    assert ("promotion/challenger_success_rate" in promoted.data.metrics) == (
        env_id == "FetchReach-v4"
    )
    assert "evaluation/returns.png" in list_artifacts(run, "evaluation")
    assert MlflowClient().get_model_version("agent", "1").tags["mlflow_sb3.inference"] == "onnx"


def test_a_missing_dependency_gives_the_pip_commands_alone() -> None:
    text = (
        "Box2D is not installed, you can install it by run `pip install swig` followed by "
        '`pip install "gymnasium[box2d]"`'
    )

    command = env_packages.find_pip_command(DependencyNotInstalled(text))

    assert command == 'pip install swig && pip install "gymnasium[box2d]"'
