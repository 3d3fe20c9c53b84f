"""The exported graph as a policy: observations in, actions out, with onnxruntime and numpy alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

GRAPH = "policy.onnx"
CARD = "agent.json"


@dataclass(frozen=True)
class Space:
    """Shape and dtype of one observation or action, and Gymnasium's own words for the space."""

    shape: tuple[int, ...]
    dtype: str
    text: str

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(tuple(values["shape"]), values["dtype"], values["text"])


class OnnxPolicy:
    """A trained agent's policy, ready to act; it holds no state, so that threads may share it.

    Observation preprocessing, action scaling and clipping are inside the graph: observations go in and actions come
    out as the environment has them.
    """

    def __init__(self, graph: bytes, observation_space: Space, action_space: Space) -> None:
        """Open a graph with the input ``observation`` and the output ``action``, on one thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.observation_space = observation_space
        self.action_space = action_space
        self.card: dict[str, Any] = {}
        self._shape = observation_space.shape
        self._input_dtype = np.dtype(np.float32)
        self._output_dtype = np.dtype(action_space.dtype)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open the ``agent`` folder of a saved model.

        Raises:
            ValueError: The graph is not the one that was saved.
        """
        card = json.loads((folder / CARD).read_text())
        graph = (folder / GRAPH).read_bytes()
        found, saved = hashlib.sha256(graph).hexdigest(), card["digests"][GRAPH]
        if found != saved:
            raise ValueError(f"{GRAPH} has the digest {found}, but {saved} was saved: the file has changed; save the agent again.")
        policy = cls(graph, Space.from_json(card["observation_space"]), Space.from_json(card["action_space"]))
        policy.card = card
        return policy

    @property
    def environment(self) -> str | None:
        """The ``EnvSpec`` JSON of the environment that the agent was trained in, if it is known."""
        description = self.card.get("environment")
        return None if description is None else json.dumps(description)

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,  # noqa: ARG002
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Pick actions, with the signature of SB3's ``predict``.

        Args:
            observation: Numbers of shape ``(n, *observation_shape)``, or one observation of ``observation_shape``: an
                array of float32, float64 or integers, nested lists, or a DataFrame.
            state: Handed back; for recurrent policies, which this version does not have.
            episode_start: As ``state``.
            deterministic: Must be true in this version.

        Returns:
            Actions of shape ``(n, *action_shape)``, or ``action_shape`` for one observation, in the dtype of the action
            space; and the state.

        Raises:
            ValueError: The shape, the kind of dtype or a NaN does not fit, or a sampled action is asked for.
        """
        if not deterministic:
            raise ValueError("sampled actions are not supported yet; call predict with deterministic=True.")
        try:
            batch = np.asarray(observation)
        except ValueError as error:
            raise ValueError(f"observation is no array ({error}); expected {self._expected()}.") from error
        single = batch.shape == self._shape
        if not single and (batch.ndim == 0 or batch.shape[1:] != self._shape):
            raise ValueError(f"observation has the shape {batch.shape}; expected {self._expected()}.")
        if batch.dtype != self._input_dtype:
            if batch.dtype.kind not in "fiu":
                raise ValueError(f"observation has the dtype {batch.dtype}; expected {self._expected()}.")
            batch = batch.astype(self._input_dtype)
        if np.count_nonzero(batch != batch):  # noqa: PLR0124 NaN alone differs from itself: half the time of isnan
            raise ValueError(f"observation contains NaN; expected {self._expected()} without NaN.")
        actions = self._session.run(["action"], {"observation": batch[np.newaxis] if single else batch})[0]
        if actions.dtype != self._output_dtype:
            actions = actions.astype(self._output_dtype)
        return (actions.squeeze(axis=0) if single else actions), state

    def outputs(self, observation: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Everything that the graph computes for a batch: ``action`` and the parameters of the action distribution."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {"observation": observation.astype(self._input_dtype)}), strict=True))

    def _expected(self) -> str:
        sizes = ", ".join(map(str, self._shape))
        return f"({sizes}) for one or (n, {sizes}) for many, of {self.observation_space.dtype}"
