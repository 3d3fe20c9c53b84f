"""A policy behind MLflow's signatures: what ``mlflow.pyfunc`` and ``mlflow models serve`` ask, and what they get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from numpy.typing import NDArray

from mlflow_sb3.inference.batching import Observations
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.inference.policy_inputs import (
    ACTION_MASKS,
    OBSERVATION,
    STATE_NAMES,
    LstmState,
    PolicyInputs,
    SpaceInfo,
)

if TYPE_CHECKING:
    from mlflow_sb3.flavor.sb3_policy import SB3AgentPolicy

ImageInput = Literal["tensor", "base64"]
EPISODE_START = "episode_start"
_PARAMS = ParamSchema(
    [ParamSpec("deterministic", "boolean", True), ParamSpec("seed", "long", None)]
)


def make_signature(
    inputs: PolicyInputs, action_space: SpaceInfo, *, image_input: ImageInput = "tensor"
) -> ModelSignature:
    """What a policy takes and gives, in MLflow's words.

    Args:
        inputs: Observations alone are one tensor without a name; keys of a Dict, state and masks are tensors with names.
        action_space: Of the actions; a recurrent policy gives a dict of ``action`` and the next state.
        image_input: ``"base64"`` for one binary column instead of the tensor: an image's bytes, which JSON carries as base64.

    Raises:
        MlflowException: A binary column is asked for what is no single image.
    """
    if image_input == "base64":
        return ModelSignature(_binary(inputs), _outputs(inputs, action_space), _PARAMS)
    if taken := _reserved(inputs) & set(inputs.space.spaces or {}):
        raise MlflowException.invalid_parameter_value(
            f"the observation has a key {sorted(taken)[0]!r}, which means something else in a request; rename it in the environment."
        )
    named = inputs.space.spaces is not None or not inputs.plain
    arrays = inputs.space.spaces or {OBSERVATION: inputs.space}
    tensors = [_tensor(space, name if named else None) for name, space in arrays.items()]
    return ModelSignature(
        Schema([*tensors, *_beside(inputs)]), _outputs(inputs, action_space), _PARAMS
    )


def make_request(
    inputs: PolicyInputs, observation: Observations, *, image_input: ImageInput = "tensor"
) -> Any:
    """One request for the observation, as the signature has it."""
    if image_input == "base64" and not isinstance(observation, dict):
        return pd.DataFrame({OBSERVATION: [one.tobytes() for one in observation]})
    arrays = observation if isinstance(observation, dict) else {OBSERVATION: observation}
    request = {name: values.astype(declared_dtype(values.dtype)) for name, values in arrays.items()}
    count = len(next(iter(request.values())))
    if inputs.state_shape is not None:
        request |= {name: np.zeros((count, *inputs.state_shape)) for name in STATE_NAMES} | {
            EPISODE_START: np.ones(count, bool)
        }
    if inputs.mask_size is not None:
        request[ACTION_MASKS] = np.ones((count, inputs.mask_size), bool)
    return request if isinstance(observation, dict) or len(request) > 1 else request[OBSERVATION]


def declared_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """MLflow takes one dtype: float64 for floats, which is what JSON, DataFrames and plain numpy arrays bring."""
    return np.dtype(np.float64) if dtype.kind == "f" else dtype


class PolicyModel:
    """What ``mlflow.pyfunc`` wraps: a request in, an answer out; the state of an agent goes in and comes out with the request."""

    def __init__(self, policy: OnnxPolicy | SB3AgentPolicy) -> None:
        """Serve a policy."""
        self._policy = policy

    def predict(
        self, model_input: Any, params: dict[str, Any] | None = None
    ) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """Actions of shape ``(n, *action_shape)``; of a recurrent policy, a dict of them and the next state.

        Args:
            model_input: As the signature says. The arrays ``hidden`` and ``cell`` have the shape ``(n, layers, units)``.
            params: ``deterministic`` (true) and ``seed`` (of sampled actions).

        Raises:
            MlflowException: The request does not fit.
        """
        asked = params or {}
        try:
            observation, state, more = self._asked(model_input)
            actions, following = self._policy.predict(
                observation,
                state,
                deterministic=asked.get("deterministic", True),
                seed=asked.get("seed"),
                **more,
            )
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        if self._policy.inputs.state_shape is None or following is None:
            return actions
        return {"action": actions} | {
            name: part.swapaxes(0, 1) for name, part in zip(STATE_NAMES, following, strict=True)
        }

    def get_raw_model(self) -> OnnxPolicy | SB3AgentPolicy:
        """The policy itself."""
        return self._policy

    def _asked(self, request: Any) -> tuple[Any, LstmState | None, dict[str, Any]]:
        """Observation, state and whatever else is in a request."""
        if (
            isinstance(request, pd.DataFrame)
            and OBSERVATION in request
            and all(isinstance(image, bytes) for image in request[OBSERVATION])
        ):
            return self._decoded(request[OBSERVATION]), None, {}
        if not isinstance(request, Mapping):
            return request, None, {}
        arrays = dict(request)
        reserved = _reserved(self._policy.inputs)
        more = {
            name: arrays.pop(name)
            for name in (EPISODE_START, ACTION_MASKS)
            if name in arrays and name in reserved
        }
        state = tuple(
            np.asarray(arrays.pop(name))
            for name in STATE_NAMES
            if name in arrays and name in reserved
        )
        if self._policy.inputs.space.spaces is None and set(arrays) == {OBSERVATION}:
            return arrays[OBSERVATION], _layers_first(state), more
        return arrays, _layers_first(state), more

    def _decoded(self, images: pd.Series[Any]) -> NDArray[Any]:
        space = self._policy.inputs.space
        dtype = np.dtype(space.dtype)
        size = int(np.prod(space.shape)) * dtype.itemsize
        if images.empty:
            raise ValueError("there are no images; give one at least.")
        if wrong := [len(image) for image in images if len(image) != size]:
            raise ValueError(
                f"an image has {wrong[0]} bytes; expected {size}, the {dtype} values of {space.shape} in C order."
            )
        return np.stack([np.frombuffer(image, dtype).reshape(space.shape) for image in images])


def _reserved(inputs: PolicyInputs) -> set[str]:
    """Names in a request that are no observations."""
    return {str(spec.name) for spec in _beside(inputs)}


def _layers_first(state: LstmState) -> LstmState | None:
    if any(part.ndim != 3 for part in state):  # noqa: PLR2004
        raise ValueError(
            f"state has the shapes {[part.shape for part in state]}; expected (n, layers, units)."
        )
    return tuple(part.swapaxes(0, 1) for part in state) or None


def _tensor(space: SpaceInfo, name: str | None) -> TensorSpec:
    return TensorSpec(declared_dtype(np.dtype(space.dtype)), (-1, *space.shape), name)


def _beside(inputs: PolicyInputs) -> list[TensorSpec]:
    tensors = []
    if inputs.state_shape is not None:
        tensors += [
            TensorSpec(np.dtype(np.float64), (-1, *inputs.state_shape), name)
            for name in STATE_NAMES
        ]
        tensors.append(TensorSpec(np.dtype(bool), (-1,), EPISODE_START))
    if inputs.mask_size is not None:
        tensors.append(TensorSpec(np.dtype(bool), (-1, inputs.mask_size), ACTION_MASKS))
    return tensors


def _outputs(inputs: PolicyInputs, action_space: SpaceInfo) -> Schema:
    if inputs.state_shape is None:
        return Schema([TensorSpec(np.dtype(action_space.dtype), (-1, *action_space.shape))])
    state = [
        TensorSpec(np.dtype(np.float32), (-1, *inputs.state_shape), name) for name in STATE_NAMES
    ]
    return Schema(
        [TensorSpec(np.dtype(action_space.dtype), (-1, *action_space.shape), "action"), *state]
    )


def _binary(inputs: PolicyInputs) -> Schema:
    if (
        inputs.space.spaces is not None
        or not inputs.plain
        or np.dtype(inputs.space.dtype) != np.uint8
    ):
        raise MlflowException.invalid_parameter_value(
            f"image_input=base64 is for observations of one uint8 image, and this agent takes {inputs.space}; use image_input=tensor."
        )
    return Schema([ColSpec(DataType.binary, OBSERVATION)])
