from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.inference.policy_inputs import SpaceInfo


@pytest.fixture
def policy(saved: Path) -> OnnxPolicy:
    return OnnxPolicy.load(saved / "agent")


def test_a_policy_without_state_returns_the_state_unchanged(policy: OnnxPolicy) -> None:
    state = (np.zeros(3),)

    assert policy.predict(np.zeros((1, 4)), state, np.array([True]))[1] is state


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros((3, 4), np.float16),
        np.zeros((3, 4), np.uint8),
        np.zeros((8, 3)).T[:, ::2],
        np.zeros((4, 3)).T,
    ],
    ids=["float16", "uint8", "strided", "transposed"],
)
def test_observations_can_have_any_numeric_dtype_and_memory_order(
    policy: OnnxPolicy, observation: NDArray[Any]
) -> None:
    assert policy.predict(observation)[0].tolist() == policy.predict(np.zeros((3, 4)))[0].tolist()


def test_an_empty_batch_has_no_actions(policy: OnnxPolicy) -> None:
    assert policy.predict(np.zeros((0, 4)))[0].shape == (0,)


@pytest.mark.parametrize(
    "observation",
    [
        None,
        {"a": 1},
        "abcd",
        np.zeros((1, 4), bool),
        np.zeros((1, 4), complex),
        [[0.0, 0.0, 0.0, 0.0], [0.0]],
        [],
    ],
    ids=["None", "dict", "text", "bool", "complex", "ragged", "empty"],
)
def test_an_invalid_observation_is_refused_with_the_expected_shape(
    policy: OnnxPolicy, observation: Any
) -> None:
    with pytest.raises(ValueError, match=r"Expected shape \(4\) or \(n, 4\), dtype float32"):
        policy.predict(observation)


def test_predict_does_not_change_the_observation(policy: OnnxPolicy) -> None:
    observation = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    before = observation.copy()

    policy.predict(observation)

    assert np.array_equal(observation, before)


def test_threads_can_share_a_policy(policy: OnnxPolicy) -> None:
    batches = [np.random.default_rng(seed).normal(size=(32, 4)) for seed in range(64)]
    expected = [policy.predict(batch)[0].tolist() for batch in batches]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda batch: policy.predict(batch)[0].tolist(), batches))

    assert answers == expected
    assert len({tuple(actions) for actions in expected}) > 1


def test_agent_json_has_the_algorithm_the_environment_and_the_versions(policy: OnnxPolicy) -> None:
    assert policy.environment is not None
    assert policy.agent_info is not None
    assert json.loads(policy.environment)["id"] == "CartPole-v1"
    assert policy.agent_info.algorithm == "stable_baselines3.ppo.ppo.PPO"
    assert policy.action_space == SpaceInfo("Discrete(2)", (), "int64", 0, 1)
    assert policy.observation_space.shape == (4,)
    assert {"mlflow", "numpy", "onnxruntime", "stable_baselines3", "torch", "gymnasium"} <= set(
        policy.agent_info.versions
    )


def test_a_changed_graph_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved / "agent", tmp_path / "agent"))
    (folder / "policy.onnx").write_bytes((folder / "policy.onnx").read_bytes() + b"\0")

    with pytest.raises(
        ValueError,
        match=r"policy\.onnx has changed since it was saved .* Save the agent again",
    ):
        OnnxPolicy.load(folder)
