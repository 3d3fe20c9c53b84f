"""Sample uniformly random actions.

As long as a registered model has no champion, its challengers are compared with these actions.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_sb3.envs import Env, spaces
from mlflow_sb3.inference import batching
from mlflow_sb3.inference.policy_inputs import LstmState


class RandomPolicy:
    """Policy that samples actions uniformly, or uniformly among the actions that a mask allows.

    The actions depend only on the seed, the masks and the number of actions sampled before.
    """

    def __init__(self, env: Env, *, seed: int, has_action_masks: bool = False) -> None:
        """Create a policy for the action space of an environment.

        Args:
            env: Environment with the action space.
            seed: Seed of the actions.
            has_action_masks: Whether ``predict`` needs ``action_masks``.
        """
        self._space = copy.deepcopy(env.action_space)
        self._space.seed(seed % 2**32)
        self._rng = np.random.default_rng(seed)
        self.has_action_masks = has_action_masks

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,  # noqa: ARG002  # part of the Policy protocol
        deterministic: bool = True,  # noqa: ARG002  # part of the Policy protocol
        *,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """Return one action for each observation of a batch, and the unchanged state.

        Args:
            observation: Batch of observations. Only its size matters.
            state: Returned as it is.
            episode_start: Ignored.
            deterministic: Ignored.
            action_masks: Booleans of shape ``(n, choices)``, true for a valid action.
        """
        if action_masks is not None:
            return self._sample_masked(action_masks), state
        count = batching.get_batch_size(observation)
        return np.array([self._space.sample() for _ in range(count)]), state

    def _sample_masked(self, masks: NDArray[np.bool_]) -> NDArray[Any]:
        """Draw a random number for each valid choice, and take the choice with the largest one."""
        numbers = np.where(masks, self._rng.random(masks.shape), -1.0)
        boundaries = np.cumsum(spaces.get_action_sizes(self._space))[:-1]
        parts = np.split(numbers, boundaries, axis=1)
        choices = np.stack([part.argmax(axis=1) for part in parts], axis=1)
        actions = choices.reshape(len(masks), *(self._space.shape or ()))
        start = spaces.get_space_start(self._space)
        return actions if start is None else actions + start
