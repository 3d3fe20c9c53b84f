"""Run an agent with Stable-Baselines3 itself.

``SB3Policy`` wraps an algorithm in memory. Exported graphs are compared with it, and it plays the
evaluation episodes of a training. ``SB3AgentPolicy`` loads a saved agent with
``inference="native"``. A logged model with native inference carries a copy of this module.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import operator
from pathlib import Path
from threading import Lock
from typing import Any, Self

from gymnasium.spaces import Space as GymSpace
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize

from mlflow_sb3.envs import spaces
from mlflow_sb3.flavor.vec_normalize import Statistics, make_standalone
from mlflow_sb3.inference.agent_files import AGENT_ZIP, VEC_NORMALIZE_JSON, AgentInfo
from mlflow_sb3.inference.batching import get_batch_size
from mlflow_sb3.inference.policy_inputs import ACTION_MASKS, OBSERVATION, LstmState, PolicyInputs
from mlflow_sb3.wrappers import shift_values

WITHOUT_REPLAY_BUFFER: dict[str, Any] = {
    "buffer_size": 1,
    "optimize_memory_usage": False,
    "replay_buffer_class": None,
    "replay_buffer_kwargs": {},
}
"""``custom_objects`` to load an agent without its replay buffer, to predict only.

A replay buffer would waste memory, and ``HerReplayBuffer`` needs an environment.
"""


class SB3Policy:
    """An SB3 algorithm or policy that takes observations of the raw environment.

    It normalizes observations. If a Discrete or MultiDiscrete space does not start at 0, it
    subtracts the start from observations and adds it to actions, because SB3's values start at 0.
    """

    def __init__(
        self,
        predictor: BaseAlgorithm | BasePolicy,
        observation_space: GymSpace[Any],
        action_space: GymSpace[Any],
        vec_normalize: VecNormalize | None = None,
    ) -> None:
        """Wrap a predictor.

        Args:
            predictor: Algorithm or policy.
            observation_space: Observation space of the raw environment.
            action_space: Action space of the raw environment.
            vec_normalize: Normalizes observations. It is not changed.
        """
        self._predictor = predictor
        self._observation_space = observation_space
        self._action_space = action_space
        self._vec_normalize = vec_normalize
        self.has_action_masks = has_action_masks(predictor)

    @classmethod
    def from_algorithm(
        cls, model: BaseAlgorithm, observation_space: GymSpace[Any], action_space: GymSpace[Any]
    ) -> Self:
        """Wrap the policy and the ``VecNormalize`` of an algorithm."""
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
        """Predict actions for a batch of raw observations, like SB3's ``predict``."""
        masks = {} if action_masks is None else {ACTION_MASKS: action_masks}
        actions, next_state = self._predictor.predict(
            self.preprocess(observation), state, episode_start, deterministic, **masks
        )
        return shift_values(actions, self._action_space, operator.add), next_state

    def preprocess(self, observation: Any) -> Any:
        """Return the observations that SB3's policy expects for raw observations."""
        shifted = shift_values(observation, self._observation_space, operator.sub)
        if self._vec_normalize is None:
            return shifted
        return self._vec_normalize.normalize_obs(shifted)


class SB3AgentPolicy:
    """The policy of a saved agent with ``inference="native"``, with the interface of OnnxPolicy."""

    def __init__(self, folder: Path, agent_info: AgentInfo) -> None:
        """Open an ``agent`` folder. This unpickles the SB3 file.

        Args:
            folder: The ``agent`` folder of a model.
            agent_info: Its ``agent.json``.

        Raises:
            OSError: A file is missing.
            ValueError: A file has changed since it was saved.
        """
        self.agent_info: AgentInfo | None = agent_info
        self.observation_space = agent_info.observation_space
        self.action_space = agent_info.action_space
        self._lock = Lock()
        model = load_algorithm(
            folder, agent_info, device="cpu", custom_objects=WITHOUT_REPLAY_BUFFER
        )
        raw_spaces = (
            spaces.rebuild_space(self.observation_space),
            spaces.rebuild_space(self.action_space),
        )
        self.inputs = describe_inputs(model, *raw_spaces)
        statistics = load_statistics(folder, agent_info)
        vec_normalize = None if statistics is None else make_standalone(statistics, *raw_spaces)
        self._policy = SB3Policy(model, *raw_spaces, vec_normalize)

    @property
    def has_action_masks(self) -> bool:
        """Whether ``predict`` needs ``action_masks``."""
        return self._policy.has_action_masks

    @property
    def environment(self) -> str | None:
        """``EnvSpec`` JSON of the training environment. None if it is unknown."""
        return None if self.agent_info is None else self.agent_info.env_spec_json

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
        """Predict actions; see ``OnnxPolicy.predict``.

        Raises:
            ValueError: The inputs do not fit the policy. Or ``seed`` is not None: SB3
                samples from the global generator of PyTorch.
        """
        if seed is not None:
            raise ValueError(
                f"seed={seed} is not supported with inference=native: SB3 samples from the global "
                "generator of PyTorch. Leave seed out."
            )
        arrays, is_single = self.inputs.to_observation_arrays(observation)
        extra = self.inputs.build_extra_inputs(
            get_batch_size(arrays), state, episode_start, action_masks
        )
        # An SB3 policy stores its last distribution, so only one thread may call predict at a time.
        with self._lock:
            actions, next_state = self._policy.predict(
                self._to_batch(arrays),
                state,
                episode_start,
                deterministic,
                action_masks=extra.get(ACTION_MASKS),
            )
        actions = actions.astype(self.action_space.dtype)
        return (actions[0] if is_single else actions), next_state

    def _to_batch(self, arrays: dict[str, NDArray[Any]]) -> Any:
        """Return the observation for SB3: an array, or a dict by the keys of a Dict space."""
        subspaces = self.inputs.space.spaces
        if subspaces is None:
            return arrays[OBSERVATION]
        return dict(zip(subspaces, arrays.values(), strict=True))


def save_to_bytes(model: BaseAlgorithm) -> bytes:
    """Return the content of the zip file that SB3's ``save`` writes."""
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def load_algorithm(folder: Path, agent_info: AgentInfo, **kwargs: Any) -> BaseAlgorithm:
    """Load the SB3 algorithm of an ``agent`` folder. This unpickles the file.

    Args:
        folder: The ``agent`` folder of a model.
        agent_info: Its ``agent.json``.
        kwargs: Arguments of SB3's ``load``.

    Raises:
        OSError: The file is missing.
        ValueError: The file has changed since it was saved.
    """
    content = (folder / AGENT_ZIP).read_bytes()
    agent_info.check_digest(AGENT_ZIP, content)
    module, _, name = agent_info.algorithm.rpartition(".")
    algorithm: type[BaseAlgorithm] = getattr(importlib.import_module(module), name)
    return algorithm.load(io.BytesIO(content), **kwargs)


def load_statistics(folder: Path, agent_info: AgentInfo) -> Statistics | None:
    """Load the ``VecNormalize`` statistics of an ``agent`` folder.

    Returns:
        The statistics. None if the agent was trained without ``VecNormalize``.

    Raises:
        OSError: The file is missing.
        ValueError: The file has changed since it was saved.
    """
    if VEC_NORMALIZE_JSON not in agent_info.digests:
        return None
    content = (folder / VEC_NORMALIZE_JSON).read_bytes()
    agent_info.check_digest(VEC_NORMALIZE_JSON, content)
    statistics: Statistics = json.loads(content)
    return statistics


def describe_inputs(
    model: BaseAlgorithm, observation_space: GymSpace[Any], action_space: GymSpace[Any]
) -> PolicyInputs:
    """Describe which inputs the policy of an algorithm needs.

    Args:
        model: Algorithm with the policy.
        observation_space: Observation space of the raw environment.
        action_space: Action space of the raw environment.
    """
    layers, _, units = getattr(model.policy, "lstm_hidden_state_shape", (0, 0, 0))
    return PolicyInputs(
        spaces.describe_space(observation_space),
        (layers, units) if units else None,
        tuple(spaces.get_action_sizes(action_space)) if has_action_masks(model.policy) else None,
    )


def has_action_masks(predictor: BaseAlgorithm | BasePolicy) -> bool:
    """Return whether ``predict`` of an algorithm or policy takes action masks."""
    return "action_masks" in inspect.signature(predictor.predict).parameters
