"""Tests of the installed package without the rest of the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.conftest import Place, cloned

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


def test_the_installed_package_saves_and_loads(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
        str(cloned(tmp_path).folder),
    ]
    subprocess.run(install, check=True)

    done = Place(tmp_path, {"PYTHONPATH": str(site)}).run([sys.executable, "-c", SCRIPT])

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{site}/mlflow_sb3/__init__.py () False\n"
    assert (site / "mlflow_sb3" / "py.typed").exists()
    assert not (site / "steps").exists()
