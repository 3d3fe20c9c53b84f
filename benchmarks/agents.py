"""Create an agent that balances the pole for 500 steps without training."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.types import Schema, TensorSpec
from stable_baselines3 import DQN

import mlflow_sb3
from benchmarks import wrapper
from mlflow_sb3.inference.onnx_policy import OnnxPolicy

GAINS = (0.1, 0.5, 10.0, 2.0)
"""Weights of the position, velocity, angle and angular velocity of CartPole.

The rule pushes right if the weighted sum is positive. It balances the pole for 500 steps.
"""


def create_agent() -> DQN:
    """Return a DQN whose weights apply the rule of ``GAINS``.

    The network has the layers of rl_zoo3's preset: 4, 256, 256 and 2 units.
    """
    model = DQN(
        "MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [256, 256]}, seed=0, device="cpu"
    )
    first, second, last = (
        layer for layer in model.q_net.q_net if isinstance(layer, torch.nn.Linear)
    )
    with torch.no_grad():
        first.weight[0], first.weight[1] = torch.tensor(GAINS), -torch.tensor(GAINS)
        first.bias[:2] = second.bias[:2] = last.bias[:] = 0.0
        second.weight[:2] = 0.0
        second.weight[0, 0] = second.weight[1, 1] = 1.0
        last.weight[:] = 0.0
        last.weight[1, 0], last.weight[1, 1] = 1.0, -1.0
    return model


def save_plain(model: DQN, folder: Path) -> None:
    """Save an agent as a pyfunc wrapper around SB3, as in MLflow's documentation."""
    with tempfile.TemporaryDirectory() as name:
        model.save(Path(name) / "agent.zip")
        observations = Schema([TensorSpec(np.dtype(np.float64), (-1, 4))])
        mlflow.pyfunc.save_model(
            folder,
            python_model=wrapper.PlainWrapper(),
            artifacts={"agent": str(Path(name) / "agent.zip")},
            signature=ModelSignature(observations, Schema([TensorSpec(np.dtype(np.int64), (-1,))])),
            code_paths=[str(Path(__file__).parent)],
            pip_requirements=["mlflow", "stable-baselines3"],
        )


def load_agents() -> tuple[DQN, OnnxPolicy, PyFuncModel, PyFuncModel]:
    """Return one agent as SB3 model, ONNX policy, pyfunc of this project and plain wrapper."""
    model = create_agent()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlflow_sb3.save_model(model, folder / "ours")
        save_plain(model, folder / "plain")
        policy = OnnxPolicy.load(folder / "ours" / "agent")
        return (
            model,
            policy,
            mlflow.pyfunc.load_model(str(folder / "ours")),
            mlflow.pyfunc.load_model(str(folder / "plain")),
        )
