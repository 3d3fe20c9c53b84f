"""Serve a policy through ``mlflow.pyfunc``: convert requests to observations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from mlflow_sb3.inference.policy_inputs import (
    ACTION_MASKS,
    OBSERVATION,
    STATE_NAMES,
    LstmState,
    PolicyInputs,
)
from mlflow_sb3.inference.policy_protocol import AgentPolicy

EPISODE_START = "episode_start"
MAX_ROWS_ENV = "MLFLOW_SB3_MAX_ROWS"
"""Environment variable with the largest number of observations in a request."""
DEFAULT_MAX_ROWS = 100_000
_STATE_DIMENSIONS = 3


class PolicyModel:
    """The model that ``mlflow.pyfunc`` wraps.

    It keeps no LSTM state: a client sends the state with a request and gets the next state back.
    """

    def __init__(self, policy: AgentPolicy) -> None:
        """Serve a policy."""
        self._policy = policy
        self._reserved_names = frozenset(list_reserved_names(policy.inputs))

    def predict(
        self, model_input: Any, params: dict[str, Any] | None = None
    ) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """Return actions of shape ``(n, *action_shape)``.

        Args:
            model_input: Request in the format of the signature. The arrays ``hidden`` and
                ``cell`` have the shape ``(n, layers, units)``.
            params: ``deterministic`` (default true) and ``seed`` (of sampled actions).

        Returns:
            Actions. For a recurrent policy, a dict of ``action`` and the next state.

        Raises:
            MlflowException: The request does not fit the policy, or has more observations than
                ``MLFLOW_SB3_MAX_ROWS`` (default 100,000).
        """
        options = params or {}
        try:
            _check_row_count(model_input)
            observation, state, extra_inputs = self._parse_request(model_input)
            actions, next_state = self._policy.predict(
                observation,
                state,
                deterministic=options.get("deterministic", True),
                seed=options.get("seed"),
                **extra_inputs,
            )
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        if self._policy.inputs.state_shape is None or next_state is None:
            return actions
        parts = zip(STATE_NAMES, next_state, strict=True)
        return {"action": actions} | {name: part.swapaxes(0, 1) for name, part in parts}

    def get_raw_model(self) -> AgentPolicy:
        """Return the policy."""
        return self._policy

    def _parse_request(self, request: Any) -> tuple[Any, LstmState | None, dict[str, Any]]:
        """Return the observation, the state, and the remaining arguments of ``predict``."""
        if _has_image_bytes(request):
            return self._decode_images(request[OBSERVATION]), None, {}
        if not isinstance(request, Mapping):
            return request, None, {}
        arrays = dict(request)
        reserved = {name: arrays.pop(name) for name in self._reserved_names & set(arrays)}
        state = tuple(np.asarray(reserved.pop(name)) for name in STATE_NAMES if name in reserved)
        if self._policy.inputs.space.spaces is None and set(arrays) == {OBSERVATION}:
            return arrays[OBSERVATION], _move_layers_first(state), reserved
        return arrays, _move_layers_first(state), reserved

    def _decode_images(self, images: pd.Series[Any]) -> NDArray[Any]:
        """Return images of shape ``(n, *observation_shape)`` from their bytes."""
        space = self._policy.inputs.space
        dtype = np.dtype(space.dtype)
        size = int(np.prod(space.shape)) * dtype.itemsize
        if images.empty:
            raise ValueError("The request has no images. Send at least one.")
        if wrong := [len(image) for image in images if len(image) != size]:
            raise ValueError(
                f"An image has {wrong[0]} bytes. Expected {size}: "
                f"the {dtype} values of shape {space.shape} in C order."
            )
        return np.stack([np.frombuffer(image, dtype).reshape(space.shape) for image in images])


def list_reserved_names(inputs: PolicyInputs) -> list[str]:
    """Return the names of the arrays in a request that belong to the LSTM state and the masks.

    A key of an observation must not have such a name.
    """
    names = [] if inputs.state_shape is None else [*STATE_NAMES, EPISODE_START]
    return names if inputs.mask_size is None else [*names, ACTION_MASKS]


def _check_row_count(request: Any) -> None:
    limit = int(os.environ.get(MAX_ROWS_ENV, DEFAULT_MAX_ROWS))
    values = list(request.values()) if isinstance(request, Mapping) else [request]
    rows = max((len(value) for value in values if getattr(value, "ndim", 1) > 0), default=0)
    if rows > limit:
        raise ValueError(
            f"The request has {rows} observations, but at most {limit} are accepted. Send several "
            f"requests, or set {MAX_ROWS_ENV} on the server."
        )


def _has_image_bytes(request: Any) -> bool:
    return (
        isinstance(request, pd.DataFrame)
        and OBSERVATION in request
        and all(isinstance(image, bytes) for image in request[OBSERVATION])
    )


def _move_layers_first(state: LstmState) -> LstmState | None:
    """Return a state of shape ``(n, layers, units)`` in the shape ``(layers, n, units)``.

    The policy needs the second shape. Return None if the request has no state.
    """
    if any(part.ndim != _STATE_DIMENSIONS for part in state):
        raise ValueError(
            f"state has the shapes {[part.shape for part in state]}. Expected (n, layers, units)."
        )
    return tuple(part.swapaxes(0, 1) for part in state) or None
