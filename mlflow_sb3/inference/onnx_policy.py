"""The exported graph as a policy: observations in, actions out, with onnxruntime and numpy alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mlflow_sb3.inference import action_sampling
from mlflow_sb3.inference.agent_files import (
    AGENT_JSON,
    POLICY_ONNX,
    check_file_digest,
    env_spec_json,
)
from mlflow_sb3.inference.batching import Observations, batch_size
from mlflow_sb3.inference.policy_inputs import (
    ACTION_MASKS,
    STATE_NAMES,
    LstmState,
    PolicyInputs,
    SpaceInfo,
)

NEXT_PREFIX = "next_"


class OnnxPolicy:
    """A trained agent's policy, ready to act; it holds no state, so that threads may share it.

    Observation preprocessing and normalization, action scaling and clipping are inside the graph: observations go in and
    actions come out as the environment has them.
    """

    def __init__(
        self,
        graph: bytes,
        observation_space: SpaceInfo,
        action_space: SpaceInfo,
        distribution: dict[str, Any] | None = None,
    ) -> None:
        """Open a graph on one thread.

        Args:
            graph: ONNX with the inputs of ``observation_space.inputs``, and ``hidden`` and ``cell`` for recurrent policies,
                ``action_masks`` for masked ones; its outputs are ``action``, the parameters of the distribution and the next state.
            observation_space: What goes in.
            action_space: What comes out.
            distribution: What sampled actions are drawn from; see the module ``distribution``.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self.observation_space = observation_space
        self.action_space = action_space
        self.distribution = distribution or {"kind": "unknown"}
        self.card: dict[str, Any] = {}
        shapes = {found.name: found.shape for found in self._session.get_inputs()}
        state_shape = (
            (shapes[STATE_NAMES[0]][0], shapes[STATE_NAMES[0]][2])
            if STATE_NAMES[0] in shapes
            else None
        )
        self.inputs = PolicyInputs(
            observation_space,
            state_shape,
            tuple(self.distribution["nvec"]) if ACTION_MASKS in shapes else None,
        )
        self._plain = self.inputs.plain
        self._next = [NEXT_PREFIX + name for name in STATE_NAMES] if state_shape else []
        self._parameters = [
            found.name for found in self._session.get_outputs() if found.name not in self._next
        ]
        self._deterministic = ["action", *self._next]
        self._output_dtype = np.dtype(action_space.dtype)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open the ``agent`` folder of a saved model.

        Raises:
            ValueError: The graph is not the one that was saved.
        """
        card = json.loads((folder / AGENT_JSON).read_text())
        graph = (folder / POLICY_ONNX).read_bytes()
        check_file_digest(card, POLICY_ONNX, graph)
        policy = cls(
            graph,
            SpaceInfo.from_json(card["observation_space"]),
            SpaceInfo.from_json(card["action_space"]),
            card["distribution"],
        )
        policy.card = card
        return policy

    @property
    def takes_masks(self) -> bool:
        """Whether ``predict`` needs ``action_masks``."""
        return self.inputs.choices is not None

    @property
    def environment(self) -> str | None:
        """The ``EnvSpec`` JSON of the environment that the agent was trained in, if it is known."""
        return env_spec_json(self.card)

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
        """Pick actions, with the signature of SB3's ``predict``.

        Args:
            observation: Numbers of shape ``(n, *observation_shape)``, or one observation of ``observation_shape``: an
                array of float32, float64 or integers, nested lists, or a DataFrame; a dict of them for a Dict space.
            state: Of a recurrent policy: what the last call returned, arrays of shape ``(layers, n, units)``; None begins.
            episode_start: Of a recurrent policy: booleans of shape ``(n,)``, true where an episode begins and the state is forgotten.
            deterministic: The best action; otherwise one that is sampled as SB3 does, with fresh noise for every observation.
            action_masks: Of an agent that was trained with masks: booleans of shape ``(n, choices)``, true for what is allowed.
            seed: Of the sampled actions; without it, they differ from call to call.

        Returns:
            Actions of shape ``(n, *action_shape)``, or ``action_shape`` for one observation, in the dtype of the action
            space; and the next state of a recurrent policy, or else what came in.

        Raises:
            ValueError: A shape, the kind of a dtype or a NaN does not fit, or masks are missing.
        """
        feeds, single = self.inputs.observed(observation)
        if not self._plain or action_masks is not None:
            feeds |= self.inputs.beside(batch_size(feeds), state, episode_start, action_masks)
        outputs = self._session.run(self._deterministic if deterministic else None, feeds)
        actions = outputs[0] if deterministic else self._sampled(outputs, seed)
        if actions.dtype != self._output_dtype:
            actions = actions.astype(self._output_dtype)
        following = tuple(outputs[-len(self._next) :]) if self._next else state
        return (actions.squeeze(axis=0) if single else actions), following

    def outputs(
        self,
        observation: Observations,
        state: LstmState | None = None,
        *,
        action_masks: NDArray[Any] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """All that the graph computes for a batch: ``action``, the parameters of the action distribution, the next state."""
        feeds, _ = self.inputs.observed(observation)
        feeds |= self.inputs.beside(batch_size(feeds), state, None, action_masks)
        names = [*self._parameters, *self._next]
        return dict(zip(names, self._session.run(names, feeds), strict=True))

    def _sampled(self, outputs: list[NDArray[Any]], seed: int | None) -> NDArray[Any]:
        named = dict(zip(self._parameters, outputs, strict=False))
        return action_sampling.sample_actions(self.distribution, named, np.random.default_rng(seed))
