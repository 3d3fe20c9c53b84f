"""Compute the outputs of an SB3 policy: action, distribution parameters and next LSTM state.

The functions can be exported to ONNX. SB3's ``predict`` cannot, because it returns numpy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.ars.policies import ARSPolicy
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.td3.policies import TD3Policy

from mlflow_sb3.envs.spaces import get_action_sizes, get_space_start
from mlflow_sb3.flavor import sb3_internals
from mlflow_sb3.inference.onnx_policy import NEXT_PREFIX
from mlflow_sb3.inference.policy_inputs import STATE_NAMES

Tensors = dict[str, torch.Tensor]


def compute_action(
    policy: BasePolicy, observation: Any, *extra_inputs: torch.Tensor
) -> tuple[torch.Tensor, Tensors, Tensors]:
    """Compute the deterministic action of a policy.

    Args:
        policy: SB3 policy.
        observation: Preprocessed observations: a tensor of shape ``(n, *observation_shape)``, or
            a dict of tensors.
        extra_inputs: LSTM state of a recurrent policy, or action masks of a maskable policy.

    Returns:
        The action before it is scaled or clipped to the action space, the distribution parameters
        by name, and the next LSTM state by name.
    """
    if isinstance(policy, RecurrentActorCriticPolicy):
        distribution, state = _step_lstm(policy, observation, *extra_inputs)
        return distribution.get_actions(deterministic=True), _read_parameters(distribution), state
    if isinstance(policy, MaskableActorCriticPolicy):
        masks: Any = extra_inputs[0]  # SB3 declares a numpy array, but accepts a tensor
        distribution = policy.get_distribution(observation, action_masks=masks)
        return distribution.get_actions(deterministic=True), _read_parameters(distribution), {}
    if isinstance(policy, ActorCriticPolicy):
        distribution = policy.get_distribution(observation)
        return distribution.get_actions(deterministic=True), _read_parameters(distribution), {}
    action = sb3_internals.predict_action(policy, observation)
    return action, _compute_values(policy, observation), {}


def _compute_values(policy: BasePolicy, observation: Any) -> Tensors:
    """Compute Q-values, scores or distribution parameters of any policy but ActorCriticPolicy.

    The result is empty for deterministic policies with continuous actions.
    """
    if isinstance(policy, DQNPolicy):
        return {"q_values": policy.q_net(observation)}
    if isinstance(policy, QRDQNPolicy):
        return {"q_values": policy.quantile_net(observation).mean(dim=1)}
    if isinstance(policy, ARSPolicy) and isinstance(policy.action_space, spaces.Discrete):
        features = policy.extract_features(observation, policy.features_extractor)
        return {"scores": policy.action_net(features)}
    actor = getattr(policy, "actor", None)
    if actor is None or not hasattr(actor, "get_action_dist_params"):
        return {}
    mean, log_std, kwargs = actor.get_action_dist_params(observation)
    return _read_parameters(actor.action_dist.proba_distribution(mean, log_std, **kwargs))


def _read_parameters(distribution: Any) -> Tensors:
    """Return the logits of a discrete distribution, or mean and log std of a Gaussian one."""
    inner = getattr(distribution, "distributions", None) or distribution.distribution
    if isinstance(inner, list):
        return {"logits": torch.cat([categorical.logits for categorical in inner], dim=1)}
    if hasattr(inner, "logits"):
        return {"logits": inner.logits}
    return {"mean": inner.mean, "log_std": inner.stddev.log()}


def _step_lstm(
    policy: RecurrentActorCriticPolicy, observation: Any, hidden: torch.Tensor, cell: torch.Tensor
) -> tuple[Any, Tensors]:
    """Return the action distribution and the next LSTM state.

    This replaces a method of sb3-contrib that branches on the values of ``episode_starts``.
    PyTorch cannot export such a branch.
    """
    features = super(ActorCriticPolicy, policy).extract_features(
        observation, policy.pi_features_extractor
    )
    output, state = policy.lstm_actor(features.unsqueeze(0), (hidden, cell))
    latent = policy.mlp_extractor.forward_actor(output.squeeze(0))
    next_state = {NEXT_PREFIX + name: part for name, part in zip(STATE_NAMES, state, strict=True)}
    return sb3_internals.get_recurrent_distribution(policy, latent), next_state


def describe_distribution(
    model: BaseAlgorithm, policy: BasePolicy, action_space: spaces.Space[Any], outputs: set[str]
) -> dict[str, Any]:
    """Describe the distribution that SB3 samples actions from.

    Args:
        model: Algorithm. DQN and QRDQN have the exploration rate.
        policy: Policy of the algorithm.
        action_space: Action space of the environment.
        outputs: Names of the graph's outputs.

    Returns:
        A distribution for ``action_sampling``. Its kind is ``"unknown"`` if it cannot be sampled.
    """
    if "q_values" in outputs and isinstance(action_space, spaces.Discrete):
        return {
            "kind": "epsilon_greedy",
            "epsilon": float(getattr(model, "exploration_rate", 0.0)),
            "n": int(action_space.n),
            "start": int(action_space.start),
        }
    if "mean" in outputs and isinstance(action_space, spaces.Box):
        kind = "squashed_gaussian" if policy.squash_output else "gaussian"
        low, high = _bounds_to_json(action_space.low), _bounds_to_json(action_space.high)
        return {"kind": kind, "low": low, "high": high}
    if "logits" in outputs:
        return _describe_discrete(policy, action_space)
    is_deterministic = isinstance(policy, (ARSPolicy, TD3Policy))
    return {"kind": "deterministic" if is_deterministic else "unknown"}


def _describe_discrete(policy: BasePolicy, action_space: spaces.Space[Any]) -> dict[str, Any]:
    has_masks = isinstance(policy, MaskableActorCriticPolicy)
    if isinstance(action_space, spaces.MultiBinary) and not has_masks:
        return {"kind": "bernoulli"}
    start, nvec = get_space_start(action_space), get_action_sizes(action_space)
    starts = [0] * len(nvec) if start is None else np.ravel(start).tolist()
    return {"kind": "categorical", "nvec": nvec, "start": starts}


def _bounds_to_json(values: np.ndarray[Any, Any]) -> list[float | None]:
    """Return flat bounds, with None for infinity."""
    return [float(value) if np.isfinite(value) else None for value in values.ravel()]
