"""Who knows nothing: a policy whose actions are uniformly random."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_sb3.envs import spaces
from mlflow_sb3.envs.wrapper_config import Env
from mlflow_sb3.inference import batching
from mlflow_sb3.inference.policy_inputs import LstmState


class RandomPolicy:
    """Uniform over the actions, or over those that masks allow; follows only from its seed and from the calls before."""

    def __init__(self, env: Env, *, seed: int, takes_masks: bool = False) -> None:
        """Act in environments with the action space of ``env``."""
        self._space = copy.deepcopy(env.action_space)
        self._space.seed(seed % 2**32)
        self._rng = np.random.default_rng(seed)
        self.takes_masks = takes_masks

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,  # noqa: ARG002 the signature of a policy
        deterministic: bool = True,  # noqa: ARG002
        *,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """An action for each observation of a batch, and the state as it came."""
        if action_masks is not None:
            return self._allowed(action_masks), state
        return np.array(
            [self._space.sample() for _ in range(batching.batch_size(observation))]
        ), state

    def _allowed(self, masks: NDArray[np.bool_]) -> NDArray[Any]:
        edges = np.cumsum(spaces.action_sizes(self._space))[:-1]
        drawn = np.split(np.where(masks, self._rng.random(masks.shape), -1.0), edges, axis=1)
        chosen = np.stack([part.argmax(axis=1) for part in drawn], axis=1).reshape(
            len(masks), *(self._space.shape or ())
        )
        first = spaces.space_start(self._space)
        return chosen if first is None else chosen + first
