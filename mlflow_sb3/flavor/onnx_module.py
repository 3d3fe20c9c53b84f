"""PyTorch module that is exported to ONNX: an SB3 policy that takes raw observations."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from mlflow_sb3.envs.spaces import get_action_sizes, get_input_spaces, get_space_start
from mlflow_sb3.flavor.policy_outputs import Tensors, compute_action
from mlflow_sb3.inference.policy_inputs import ACTION_MASKS, STATE_NAMES, get_array_dtype


class PolicyModule(nn.Module):
    """An SB3 policy with observation preprocessing and action scaling.

    Its outputs are the deterministic action, the distribution parameters, and the next LSTM state.
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        """Copy the policy of an algorithm.

        Args:
            model: Algorithm; it is not changed.
            observation_space: Observation space of the raw environment.
            action_space: Action space of the raw environment.
        """
        super().__init__()
        self.policy = copy_policy(model.policy)
        self.policy.set_training_mode(False)
        self.action_space = action_space
        self.input_spaces = get_input_spaces(observation_space)
        keys = list(observation_space) if isinstance(observation_space, spaces.Dict) else [""]
        self.keys = dict(zip(self.input_spaces, keys, strict=True))
        self.preprocessors = nn.ModuleList(
            _ObservationPreprocessor(
                space,
                _get_subspace(self.policy.observation_space, key),
                model.get_vec_normalize_env(),
                key,
            )
            for space, key in zip(self.input_spaces.values(), keys, strict=True)
        )
        if isinstance(action_space, spaces.Box):
            self.low = torch.as_tensor(action_space.low)
            self.high = torch.as_tensor(action_space.high)
        start = get_space_start(action_space)
        self.start = None if start is None else torch.as_tensor(start)

    def make_example(self) -> Tensors:
        """Return example inputs by name, with a batch size of 2.

        Action masks are true. Discrete spaces have their smallest value, all others zeros.
        """
        tensors = {}
        for name, space in self.input_spaces.items():
            start = get_space_start(space)
            zeros = np.zeros((2, *(space.shape or ())), get_array_dtype(space.dtype))
            tensors[name] = torch.as_tensor(zeros if start is None else zeros + start)
        if isinstance(self.policy, RecurrentActorCriticPolicy):
            layers, _, units = self.policy.lstm_hidden_state_shape
            tensors |= {name: torch.zeros(layers, 2, units) for name in STATE_NAMES}
        if isinstance(self.policy, MaskableActorCriticPolicy):
            shape = (2, sum(get_action_sizes(self.action_space)))
            tensors[ACTION_MASKS] = torch.ones(shape, dtype=torch.bool)
        return tensors

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the outputs for inputs in the order of ``make_example``."""
        return tuple(self.compute_outputs(*tensors).values())

    def compute_outputs(self, *tensors: torch.Tensor) -> Tensors:
        """Compute the outputs by name, for inputs in the order of ``make_example``."""
        arrays = [
            preprocess(tensor)
            for preprocess, tensor in zip(self.preprocessors, tensors, strict=False)
        ]
        observation: Any = arrays[0]
        if isinstance(self.policy.observation_space, spaces.Dict):
            observation = dict(zip(self.keys.values(), arrays, strict=True))
        extra_inputs = tensors[len(arrays) :]
        action, parameters, state = compute_action(self.policy, observation, *extra_inputs)
        return {"action": self._scale(action), **parameters, **state}

    def _scale(self, action: torch.Tensor) -> torch.Tensor:
        """Scale or clip the policy's action to the action space, as SB3's ``predict`` does."""
        action = action.reshape(-1, *(self.action_space.shape or ()))
        if isinstance(self.action_space, spaces.Box):
            if self.policy.squash_output:
                return self.low + (0.5 * (action + 1.0) * (self.high - self.low))
            return torch.clamp(action, self.low, self.high)
        return action if self.start is None else action + self.start


class _ObservationPreprocessor(nn.Module):
    """Convert one array of a raw observation to the array that the policy expects."""

    def __init__(
        self,
        raw: spaces.Space[Any],
        expected: spaces.Space[Any],
        vec_normalize: VecNormalize | None,
        key: str,
    ) -> None:
        """Read the constants.

        Args:
            raw: Space of the array in the raw environment.
            expected: Space of the array in the policy.
            vec_normalize: Normalizes observations before the policy gets them.
            key: Key in a Dict space, or ``""``.
        """
        super().__init__()
        start = get_space_start(raw)
        self.start = None if start is None else torch.as_tensor(start)
        self.is_transposed = raw.shape != expected.shape
        moments: Any = None
        if vec_normalize is not None and vec_normalize.norm_obs:
            moments = vec_normalize.obs_rms
            moments = moments.get(key) if isinstance(moments, dict) else moments
        self.is_normalized = moments is not None
        if moments is not None and vec_normalize is not None:
            self.mean = torch.as_tensor(moments.mean)
            self.std = torch.as_tensor(np.sqrt(moments.var + vec_normalize.epsilon))
            self.clip = float(vec_normalize.clip_obs)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        if self.start is not None:
            observation = observation - self.start
        if self.is_normalized:  # VecNormalize computes in double precision
            normalized = (observation.double() - self.mean) / self.std
            observation = torch.clamp(normalized, -self.clip, self.clip).float()
        if self.is_transposed:
            observation = observation.permute(0, 3, 1, 2)
        return observation


def _get_subspace(space: spaces.Space[Any], key: str) -> spaces.Space[Any]:
    """Return the space of a key of a Dict space, or the space itself."""
    return space.spaces[key] if isinstance(space, spaces.Dict) else space


def copy_policy(policy: BasePolicy) -> BasePolicy:
    """Return a copy of a policy on the CPU.

    After a prediction, a policy stores its last distribution. ``deepcopy`` cannot copy the tensors
    of that distribution, so the copy lacks them. ``save`` and ``load`` of SB3 cannot replace
    ``deepcopy``: a policy of sb3-contrib 2.9 does not save all its arguments, such as the size of
    an LSTM.
    """
    distributions = [
        value
        for module in policy.modules()
        for value in vars(module).values()
        if isinstance(value, Distribution)
    ]
    skipped: dict[int, Any] = {
        id(value): None
        for distribution in distributions
        for value in vars(distribution).values()
        if _is_prediction(value)
    }
    return copy.deepcopy(policy, skipped).to("cpu")


def _is_prediction(value: Any) -> bool:
    """Return whether an attribute of an SB3 distribution comes from its last prediction."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, (torch.Tensor, torch.distributions.Distribution))
