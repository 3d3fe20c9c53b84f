"""Tests of the installed package without the rest of the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import TINY_TRAINING
from tests.project.conftest import Place, cloned
from tests.project.readme import example

pytestmark = pytest.mark.process


SCRIPT = """
import sys

import numpy as np
from stable_baselines3 import PPO

import mlflow_sb3

mlflow_sb3.save_model(PPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu").learn(64), "model")
action, _ = mlflow_sb3.load_policy("model").predict(np.zeros(4))
print(mlflow_sb3.__file__, action.shape, "steps" in sys.modules)
"""


LIFE_CYCLE = "\n".join(
    [
        example("python-train").replace("50_000", "2000"),
        example("python-promote"),
        example("python-evaluate"),
        example("python-evaluate-objects"),
        example("python-mlflow-evaluate"),
        "name = 'cartpole-v1-ppo'",
        "mlflow_sb3.log_model(trained.model, name='agent', registered_model_name=name)",
        "mlflow_sb3.promote(name, 2, rule='force', reason='to have a former champion')",
        example("python-rollback"),
        "print(candidate.metrics['mean_return'] == result.mean_return)",
    ]
)
"""The code of docs/python-api.md, with a shorter training and a second champion."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    clone = str(cloned(folder).folder)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(folder / "site"), clone], check=True)
    return folder / "site"


@pytest.fixture
def elsewhere(site: Path, tmp_path: Path) -> Place:
    """An empty folder without the project."""
    return Place(tmp_path, {"PYTHONPATH": str(site)})


def test_the_installed_package_saves_and_loads(site: Path, elsewhere: Place) -> None:
    done = elsewhere.run([sys.executable, "-c", SCRIPT])

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{site}/mlflow_sb3/__init__.py () False\n"
    assert (site / "mlflow_sb3" / "py.typed").exists()
    assert not (site / "steps").exists()


def test_the_console_command_registers_promotes_and_evaluates(site: Path, elsewhere: Place) -> None:
    program = str(site / "bin" / "mlflow-sb3")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return elsewhere.run([sys.executable, program, *arguments])

    shown = call("--help")
    training = call("train", *TINY_TRAINING)
    assert training.returncode == 0, training.stderr
    run_id = elsewhere.runs()[0].info.run_id
    done = [
        training,
        call("log-model", "--run-id", run_id, "--model-name", "agent"),
        call("promote", "--model-name", "agent", "--rule", "force", "--reason", "first"),
        call("evaluate", "--model-name", "agent", "--episodes", "2"),
    ]
    failed = call("rollback", "--model-name", "agent")

    assert shown.stdout.startswith("Usage: mlflow-sb3 [OPTIONS] COMMAND")
    assert [result.returncode for result in done] == [0] * 4, done[-1].stderr
    assert "Mean reward: " in done[-1].stdout
    assert (failed.returncode, failed.stderr.count("Error: No version of agent was")) == (1, 1)
    assert [run.info.status for run in elsewhere.runs()] == ["FAILED"] + ["FINISHED"] * 4
    assert [run.info.run_name for run in elsewhere.runs()][1:] == [
        "evaluate agent/1",
        "promote agent/1 -> promoted",
        "log_model agent/1",
        "train CartPole-v1 ppo seed 0",
    ]


def test_the_life_cycle_in_python_runs_with_the_installed_evaluator(elsewhere: Place) -> None:
    done = elsewhere.run([sys.executable, "-c", LIFE_CYCLE])

    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("TrainResult(mean_return=")
    assert any(line.startswith("promote The mean return of cartpole-v1-ppo/1") for line in lines)
    assert any(line.startswith("EvaluateResult(mean_return=") for line in lines)
    assert lines[-2].startswith("1 cartpole-v1-ppo/1 is the champion again, in place of")
    assert lines[-1] == "True"
    champion = elsewhere.client.get_model_version_by_alias("cartpole-v1-ppo", "champion")
    assert str(champion.version) == "1"


def test_mlflow_finds_the_evaluator_of_the_installed_package(elsewhere: Place) -> None:
    script = "import mlflow.models; print(mlflow.models.list_evaluators())"

    done = elsewhere.run([sys.executable, "-c", script])

    assert done.returncode == 0, done.stderr
    assert "'mlflow_sb3'" in done.stdout
    assert "Failure attempting to register" not in done.stderr
