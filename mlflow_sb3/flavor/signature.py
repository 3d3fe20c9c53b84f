"""Derive the MLflow signature and the input example of a model from the inputs of its policy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from mlflow_sb3.inference.batching import Observations, get_batch_size
from mlflow_sb3.inference.policy_inputs import (
    ACTION_MASKS,
    OBSERVATION,
    STATE_NAMES,
    PolicyInputs,
    SpaceInfo,
)
from mlflow_sb3.inference.pyfunc import EPISODE_START, list_reserved_names

ImageInput = Literal["tensor", "base64"]
"""Format of image observations in a request: a tensor, or a binary column (base64 in JSON)."""
_PARAMS = ParamSchema(
    [ParamSpec("deterministic", "boolean", True), ParamSpec("seed", "long", None)]
)


def make_signature(
    inputs: PolicyInputs, action_space: SpaceInfo, *, image_input: ImageInput = "tensor"
) -> ModelSignature:
    """Return the signature of a policy.

    Args:
        inputs: Inputs of the policy. If the policy needs only observations, and they are no dict,
            the signature has one tensor without a name. Otherwise all tensors have names.
        action_space: Action space. A recurrent policy also outputs the next LSTM state.
        image_input: ``"base64"`` declares one binary column with the bytes of images.

    Raises:
        MlflowException: ``image_input="base64"`` does not fit the inputs of the policy, or a key
            of the observation has a reserved name.
    """
    outputs = _output_schema(inputs, action_space)
    if image_input == "base64":
        return ModelSignature(_binary_schema(inputs), outputs, _PARAMS)
    spaces = inputs.space.spaces or {OBSERVATION: inputs.space}
    if reserved := set(list_reserved_names(inputs)) & set(inputs.space.spaces or {}):
        raise MlflowException.invalid_parameter_value(
            f"The observation has the key {min(reserved)!r}, which is a reserved name in requests "
            "to this agent. Rename the key in the environment."
        )
    has_names = inputs.space.spaces is not None or not inputs.has_only_observations
    tensors = [
        TensorSpec(declared_dtype(space.dtype), (-1, *space.shape), name if has_names else None)
        for name, space in spaces.items()
    ]
    return ModelSignature(Schema([*tensors, *_extra_tensors(inputs)]), outputs, _PARAMS)


def make_request(
    inputs: PolicyInputs, observation: Observations, *, image_input: ImageInput = "tensor"
) -> Any:
    """Return a request with a batch of observations, in the format of the signature.

    A recurrent policy gets zeros as state. All actions are allowed.
    """
    if image_input == "base64" and not isinstance(observation, dict):
        return pd.DataFrame({OBSERVATION: [image.tobytes() for image in observation]})
    arrays = observation if isinstance(observation, dict) else {OBSERVATION: observation}
    request = {name: values.astype(declared_dtype(values.dtype)) for name, values in arrays.items()}
    count = get_batch_size(observation)
    if inputs.state_shape is not None:
        request |= {name: np.zeros((count, *inputs.state_shape)) for name in STATE_NAMES}
        request[EPISODE_START] = np.ones(count, bool)
    if inputs.mask_size is not None:
        request[ACTION_MASKS] = np.ones((count, inputs.mask_size), bool)
    return request if isinstance(observation, dict) or len(request) > 1 else request[OBSERVATION]


def declared_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype in the signature for the dtype of a space.

    A tensor of a signature has exactly one dtype. Floats are declared as float64, because JSON,
    DataFrames and most numpy arrays contain float64.
    """
    return np.dtype(np.float64) if np.dtype(dtype).kind == "f" else np.dtype(dtype)


def _extra_tensors(inputs: PolicyInputs) -> list[TensorSpec]:
    """Return the tensors for the LSTM state and the action masks, if the policy needs them."""
    shape = (-1, *(inputs.state_shape or ()))
    specs = {
        **{name: TensorSpec(np.dtype(np.float64), shape, name) for name in STATE_NAMES},
        EPISODE_START: TensorSpec(np.dtype(bool), (-1,), EPISODE_START),
        ACTION_MASKS: TensorSpec(np.dtype(bool), (-1, inputs.mask_size or 0), ACTION_MASKS),
    }
    return [specs[name] for name in list_reserved_names(inputs)]


def _output_schema(inputs: PolicyInputs, action_space: SpaceInfo) -> Schema:
    dtype, shape = np.dtype(action_space.dtype), (-1, *action_space.shape)
    if inputs.state_shape is None:
        return Schema([TensorSpec(dtype, shape)])
    state = (-1, *inputs.state_shape)
    tensors = [TensorSpec(np.dtype(np.float32), state, name) for name in STATE_NAMES]
    return Schema([TensorSpec(dtype, shape, "action"), *tensors])


def _binary_schema(inputs: PolicyInputs) -> Schema:
    is_image = inputs.space.spaces is None and np.dtype(inputs.space.dtype) == np.uint8
    if not (is_image and inputs.has_only_observations):
        raise MlflowException.invalid_parameter_value(
            "image_input=base64 needs a policy whose only input is one uint8 image, without LSTM "
            f"state and action masks. This agent takes {inputs.space}. Use image_input=tensor."
        )
    return Schema([ColSpec(DataType.binary, OBSERVATION)])
