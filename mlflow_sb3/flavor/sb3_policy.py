"""SB3's own policy in front of an environment as it is: what the exported graph has to equal, or acts in its place."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import operator
from pathlib import Path
from threading import Lock
from typing import Any

from gymnasium.spaces import Space as GymSpace
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize

from mlflow_sb3.envs import spaces
from mlflow_sb3.flavor.vec_normalize import Statistics, standalone
from mlflow_sb3.inference.agent_files import (
    AGENT_ZIP,
    VEC_NORMALIZE_JSON,
    check_file_digest,
    env_spec_json,
)
from mlflow_sb3.inference.batching import batch_size
from mlflow_sb3.inference.policy_inputs import (
    ACTION_MASKS,
    OBSERVATION,
    LstmState,
    PolicyInputs,
    SpaceInfo,
)
from mlflow_sb3.wrappers import shift

NO_BUFFER: dict[str, Any] = {
    "buffer_size": 1,
    "optimize_memory_usage": False,
    "replay_buffer_class": None,
    "replay_buffer_kwargs": {},
}
"""Who only acts remembers nothing, and HerReplayBuffer would ask for an environment."""


class SB3Policy:
    """An SB3 algorithm or policy in front of a raw environment: normalizes observations, and moves integers that do not start at 0."""

    def __init__(
        self,
        predictor: BaseAlgorithm | BasePolicy,
        observation_space: GymSpace[Any],
        action_space: GymSpace[Any],
        vec_normalize: VecNormalize | None = None,
    ) -> None:
        """Use a predictor in an environment with these spaces; ``vec_normalize`` is asked and not changed."""
        self._predictor = predictor
        self._observation_space = observation_space
        self._action_space = action_space
        self._vec_normalize = vec_normalize
        self.takes_masks = "action_masks" in inspect.signature(predictor.predict).parameters

    @classmethod
    def of(
        cls, model: BaseAlgorithm, observation_space: GymSpace[Any], action_space: GymSpace[Any]
    ) -> SB3Policy:
        """The policy of an algorithm, as it would act in an environment with these spaces."""
        return cls(model.policy, observation_space, action_space, model.get_vec_normalize_env())

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """As SB3's ``predict``, with observations and actions as the environment has them."""
        seen = self.observed(observation)
        masks = {} if action_masks is None else {ACTION_MASKS: action_masks}
        actions, state = self._predictor.predict(seen, state, episode_start, deterministic, **masks)
        return shift(actions, self._action_space, operator.add), state

    def observed(self, observation: Any) -> Any:
        """What SB3's policy sees of observations of the environment."""
        moved = shift(observation, self._observation_space, operator.sub)
        return moved if self._vec_normalize is None else self._vec_normalize.normalize_obs(moved)


def save_archive(model: BaseAlgorithm) -> bytes:
    """SB3's own file of an algorithm."""
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def load_algorithm(folder: Path, card: dict[str, Any], **kwargs: Any) -> BaseAlgorithm:
    """Load the algorithm of an ``agent`` folder; this unpickles.

    Args:
        folder: With SB3's file.
        card: What the file was saved with.
        kwargs: Handed to SB3's ``load``.

    Raises:
        ValueError: The file is not the one that was saved.
    """
    content = (folder / AGENT_ZIP).read_bytes()
    check_file_digest(card, AGENT_ZIP, content)
    module, _, name = card["algorithm"].rpartition(".")
    algorithm: type[BaseAlgorithm] = getattr(importlib.import_module(module), name)
    return algorithm.load(io.BytesIO(content), **kwargs)


def load_statistics(folder: Path, card: dict[str, Any]) -> Statistics | None:
    """What the VecNormalize of an ``agent`` folder had learned; None without one."""
    if VEC_NORMALIZE_JSON not in card["digests"]:
        return None
    content = (folder / VEC_NORMALIZE_JSON).read_bytes()
    check_file_digest(card, VEC_NORMALIZE_JSON, content)
    learned: Statistics = json.loads(content)
    return learned


def policy_inputs_of(
    model: BaseAlgorithm, observation_space: GymSpace[Any], action_space: GymSpace[Any]
) -> PolicyInputs:
    """What the policy of an algorithm takes in an environment with these spaces."""
    layers, _, units = getattr(model.policy, "lstm_hidden_state_shape", (0, 0, 0))
    masked = "action_masks" in inspect.signature(model.policy.predict).parameters
    choices = tuple(spaces.action_sizes(action_space)) if masked else None
    return PolicyInputs(
        spaces.describe_space(observation_space), (layers, units) if units else None, choices
    )


class SB3AgentPolicy:
    """A saved agent that acts by SB3 itself, behind the arguments of an ``OnnxPolicy``."""

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        """Open an ``agent`` folder; this unpickles."""
        model = load_algorithm(folder, card, device="cpu", custom_objects=NO_BUFFER)
        self.observation_space, self.action_space = (
            SpaceInfo.from_json(card[name]) for name in ("observation_space", "action_space")
        )
        raw = spaces.rebuild_space(self.observation_space), spaces.rebuild_space(self.action_space)
        learned = load_statistics(folder, card)
        self.card = card
        self.environment = env_spec_json(card)
        self.inputs = policy_inputs_of(model, *raw)
        self._policy = SB3Policy(
            model, *raw, None if learned is None else standalone(learned, *raw)
        )
        self._lock = Lock()
        self.takes_masks = self._policy.takes_masks

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
        seed: int | None = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """As ``OnnxPolicy.predict``; SB3 samples from PyTorch's global generator, so that there is no ``seed``."""
        if seed is not None:
            raise ValueError(
                "an agent of inference=native samples from global generators, which a request is not to seed; leave seed out."
            )
        arrays, single = self.inputs.observed(observation)
        masks = self.inputs.beside(batch_size(arrays), state, episode_start, action_masks).get(
            ACTION_MASKS
        )
        batch = (
            dict(zip(self.inputs.space.spaces or {}, arrays.values(), strict=True))
            if self.inputs.space.spaces
            else arrays[OBSERVATION]
        )
        with self._lock:  # SB3 keeps its last distribution in the policy
            actions, state = self._policy.predict(
                batch, state, episode_start, deterministic, action_masks=masks
            )
        actions = actions.astype(self.action_space.dtype)
        return (actions[0] if single else actions), state
