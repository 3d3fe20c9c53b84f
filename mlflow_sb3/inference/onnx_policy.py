"""Run an exported policy graph with onnxruntime and numpy alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mlflow_sb3.inference import action_sampling
from mlflow_sb3.inference.agent_files import POLICY_ONNX, AgentInfo
from mlflow_sb3.inference.batching import Observations, get_batch_size
from mlflow_sb3.inference.policy_inputs import (
    ACTION_MASKS,
    STATE_NAMES,
    LstmState,
    PolicyInputs,
    SpaceInfo,
)

NEXT_PREFIX = "next_"
"""Prefix of the graph's outputs for the next LSTM state."""


class OnnxPolicy:
    """The policy of a trained agent, as an ONNX graph.

    The graph contains observation preprocessing, observation normalization, and the scaling and
    clipping of actions. The policy therefore takes observations and returns actions of the raw
    environment. A policy holds no state, so several threads can use the same policy.
    """

    def __init__(
        self,
        graph: bytes,
        observation_space: SpaceInfo,
        action_space: SpaceInfo,
        distribution: dict[str, Any] | None = None,
        *,
        agent_info: AgentInfo | None = None,
    ) -> None:
        """Open a graph. onnxruntime uses one thread for each prediction.

        Args:
            graph: ONNX model. Its inputs are ``observation_space.inputs``. A recurrent policy also
                has the inputs ``hidden`` and ``cell``, and a policy with masks ``action_masks``.
                The outputs are ``action``, the distribution parameters and the next state.
            observation_space: Observation space of the environment.
            action_space: Action space of the environment.
            distribution: Action distribution (see ``action_sampling``). If it is
                None, actions cannot be sampled.
            agent_info: Content of ``agent.json``.
        """
        self._session = _open_session(graph)
        self.observation_space = observation_space
        self.action_space = action_space
        self.distribution = distribution or {"kind": "unknown"}
        self.agent_info = agent_info
        shapes = {node.name: node.shape for node in self._session.get_inputs()}
        state = shapes.get(STATE_NAMES[0])
        self.inputs = PolicyInputs(
            observation_space,
            None if state is None else (state[0], state[2]),
            tuple(self.distribution["nvec"]) if ACTION_MASKS in shapes else None,
        )
        self._has_only_observations = self.inputs.has_only_observations
        self._next_states = [] if state is None else [NEXT_PREFIX + name for name in STATE_NAMES]
        outputs = [node.name for node in self._session.get_outputs()]
        self._parameters = [name for name in outputs if name not in self._next_states]
        self._deterministic_outputs = ["action", *self._next_states]
        self._action_dtype = np.dtype(action_space.dtype)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open the ``agent`` folder of a saved model.

        Raises:
            OSError: A file is missing.
            ValueError: The graph has changed since it was saved, or ``agent.json`` is invalid.
        """
        info = AgentInfo.read(folder)
        graph = (folder / POLICY_ONNX).read_bytes()
        info.check_digest(POLICY_ONNX, graph)
        return cls(
            graph, info.observation_space, info.action_space, info.distribution, agent_info=info
        )

    @property
    def has_action_masks(self) -> bool:
        """Whether ``predict`` needs ``action_masks``."""
        return self.inputs.action_sizes is not None

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
        """Predict actions, with the signature of SB3's ``predict``.

        Args:
            observation: Array, nested lists or DataFrame of shape ``(n, *observation_shape)``, or
                a single observation of shape ``observation_shape``. Every float and integer dtype
                is accepted. For a Dict space, a dict with such a value for each key.
            state: For a recurrent policy, the state that the last call returned: arrays of shape
                ``(layers, n, units)``. None at the beginning of the episodes.
            episode_start: For a recurrent policy, Booleans of shape ``(n,)``. The state is reset
                to zeros where they are true.
            deterministic: Return the most likely action. If false, sample an action as SB3 does,
                with independent noise for every observation.
            action_masks: For an agent that was trained with masks, Booleans of shape
                ``(n, sum(inputs.action_sizes))``, true for allowed values.
            seed: Seed of sampled actions. Without a seed, every call samples other actions.

        Returns:
            Actions of shape ``(n, *action_shape)`` in the dtype of the action space, without the
            first axis for a single observation; and the next state of a recurrent policy. Other
            policies return ``state`` unchanged.

        Raises:
            ValueError: An input does not fit the policy (shape, dtype, keys or values), masks are
                missing or not needed, or the actions of this agent cannot be sampled.
        """
        feeds, is_single = self.inputs.to_observation_arrays(observation)
        if not self._has_only_observations or action_masks is not None:
            feeds |= self.inputs.build_extra_inputs(
                get_batch_size(feeds), state, episode_start, action_masks
            )
        outputs = self._session.run(self._deterministic_outputs if deterministic else None, feeds)
        actions = outputs[0] if deterministic else self._sample(outputs, seed)
        if actions.dtype != self._action_dtype:
            actions = actions.astype(self._action_dtype)
        if self._next_states:
            state = tuple(outputs[-len(self._next_states) :])
        return (actions.squeeze(axis=0) if is_single else actions), state

    def compute_outputs(
        self,
        observation: Observations,
        state: LstmState | None = None,
        *,
        action_masks: NDArray[Any] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return all outputs of the graph: action, distribution parameters and next state."""
        feeds, _ = self.inputs.to_observation_arrays(observation)
        feeds |= self.inputs.build_extra_inputs(get_batch_size(feeds), state, None, action_masks)
        names = [*self._parameters, *self._next_states]
        return dict(zip(names, self._session.run(names, feeds), strict=True))

    def _sample(self, outputs: list[NDArray[Any]], seed: int | None) -> NDArray[Any]:
        parameters = dict(zip(self._parameters, outputs, strict=False))
        rng = np.random.default_rng(seed)
        return action_sampling.sample_actions(self.distribution, parameters, rng)


def _open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """Open a graph with one thread per prediction: more threads slow down such small networks.

    Raises:
        ValueError: onnxruntime cannot open the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of onnxruntime have no common base class
        raise ValueError(f"onnxruntime cannot open {POLICY_ONNX}: {error}") from error
