"""Export the policy of an SB3 algorithm to ONNX and compare the graph with SB3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from mlflow_sb3.envs.spaces import describe_space
from mlflow_sb3.flavor import onnx_graph, parity, parity_inputs
from mlflow_sb3.flavor.onnx_module import PolicyModule
from mlflow_sb3.flavor.policy_outputs import describe_distribution
from mlflow_sb3.flavor.source_env import SourceEnv
from mlflow_sb3.inference import batching
from mlflow_sb3.inference.agent_files import Parity
from mlflow_sb3.inference.batching import Observations
from mlflow_sb3.inference.onnx_policy import OnnxPolicy


@dataclass(frozen=True)
class ExportedPolicy:
    """An exported policy that agrees with SB3."""

    policy: OnnxPolicy
    graph: bytes
    """ONNX model."""
    parity: Parity
    example: Observations
    """One observation, with the batch dimension."""


def export_policy(model: BaseAlgorithm, source: SourceEnv) -> ExportedPolicy:
    """Export the policy of an algorithm to ONNX and compare the graph with SB3.

    Args:
        model: Algorithm. It is not changed.
        source: Training environment. Its episodes provide half of the observations of the
            comparison. If it has no ``EnvSpec``, all observations are sampled from its space.

    Raises:
        MlflowException: PyTorch cannot export the policy, or the graph differs from SB3.
    """
    # A custom policy or environment may draw from PyTorch's random generator. Its state must not
    # change for the caller.
    with torch.random.fork_rng(devices=[]), _keep_training_mode(model.policy):
        module = PolicyModule(model, source.observation_space, source.action_space).eval()
        graph, outputs = onnx_graph.build_graph(module)
        policy = OnnxPolicy(
            graph,
            describe_space(source.observation_space),
            describe_space(source.action_space),
            describe_distribution(model, module.policy, source.action_space, set(outputs)),
        )
        inputs = parity_inputs.make_parity_inputs(model, policy, source)
        agreement = parity.check_parity(model, policy, source, inputs)
    example = batching.take_rows(inputs.observations, slice(1))
    return ExportedPolicy(policy, graph, agreement, example)


@contextmanager
def _keep_training_mode(policy: BasePolicy) -> Iterator[None]:
    """Restore the training mode at the end, because SB3's ``predict`` switches it off."""
    is_training = policy.training
    try:
        yield
    finally:
        policy.set_training_mode(is_training)
