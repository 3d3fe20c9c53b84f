"""An agent of the size that the project trains, which balances the pole for 500 steps, without training it first."""

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
"""Push right when 0.1 x + 0.5 x' + 10 angle + 2 angle' is positive: keeps a CartPole up."""


def balancing() -> DQN:
    """DQN with the network of rl_zoo3's preset, 4-256-256-2, and weights that compute the rule of ``GAINS``."""
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
    """Save an agent as a plain wrapper around SB3, as MLflow's documentation has such models."""
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


def loaded() -> tuple[DQN, OnnxPolicy, PyFuncModel, PyFuncModel]:
    """The agent as SB3's model, as our policy, as our pyfunc, and as the pyfunc of a plain wrapper."""
    model = balancing()
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
