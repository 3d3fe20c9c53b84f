from __future__ import annotations

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.flavor import signature
from mlflow_sb3.inference.policy_inputs import PolicyInputs, SpaceInfo

VECTOR = SpaceInfo("Box", (4,), "float32")
ACTION = SpaceInfo("Discrete(2)", (), "int64", 0, 1)


def test_a_plain_observation_is_a_tensor_without_a_name() -> None:
    (tensor,) = signature.make_signature(PolicyInputs(VECTOR), ACTION).inputs

    assert (tensor.name, tensor.type, tensor.shape) == (None, np.dtype(np.float64), (-1, 4))


def test_a_state_and_masks_are_tensors_with_names() -> None:
    inputs = PolicyInputs(VECTOR, (2, 8), (2,))

    schema = signature.make_signature(inputs, ACTION).inputs

    assert [(tensor.name, tensor.shape) for tensor in schema] == [
        ("observation", (-1, 4)),
        ("hidden", (-1, 2, 8)),
        ("cell", (-1, 2, 8)),
        ("episode_start", (-1,)),
        ("action_masks", (-1, 2)),
    ]


def test_a_request_has_the_tensors_of_the_signature() -> None:
    inputs = PolicyInputs(VECTOR, (2, 8), (2,))

    request = signature.make_request(inputs, np.zeros((3, 4), np.float32))

    schema = signature.make_signature(inputs, ACTION).inputs
    assert list(request) == [tensor.name for tensor in schema]
    for tensor in schema:
        assert request[tensor.name].dtype == tensor.type
        assert request[tensor.name].shape == (3, *tensor.shape[1:])


def test_base64_needs_an_image() -> None:
    with pytest.raises(MlflowException, match=r"image_input=base64 needs .* Use image_input=tens"):
        signature.make_signature(PolicyInputs(VECTOR), ACTION, image_input="base64")
