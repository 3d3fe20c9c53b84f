"""Build untrained agents and export them."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor

from mlflow_sb3.flavor import onnx_export, source_env
from mlflow_sb3.flavor.onnx_export import ExportedPolicy
from tests.environments import Spaces

BOX = spaces.Box(-1, 1, (3,))


def build_untrained(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    algo: type[BaseAlgorithm] = PPO,
    policy: str = "MlpPolicy",
) -> BaseAlgorithm:
    env = Spaces(observation_space, action_space)
    return algo(policy, env, device="cpu", seed=0)  # type: ignore[call-arg]


def export(model: BaseAlgorithm) -> ExportedPolicy:
    return onnx_export.export_policy(model, source_env.find_source_env(model))


def find_action_bias(model: BaseAlgorithm) -> torch.nn.Parameter:
    """Return the bias of the last layer of the actor."""
    names = ("action_net.bias", "actor.mu.bias", "actor.mu.4.bias", "q_net.q_net.4.bias")
    return next(weight for name, weight in model.policy.named_parameters() if name in names)


def build_with_extractor(extractor: type[FlattenExtractor]) -> BaseAlgorithm:
    return PPO(
        "MlpPolicy",
        "CartPole-v1",
        policy_kwargs={"features_extractor_class": extractor},
        device="cpu",
        seed=0,
    )
