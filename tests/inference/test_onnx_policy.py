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


def test_the_state_is_handed_back(policy: OnnxPolicy) -> None:
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
def test_numbers_of_any_kind_and_order_in_memory_are_observations(
    policy: OnnxPolicy, observation: NDArray[Any]
) -> None:
    assert policy.predict(observation)[0].tolist() == policy.predict(np.zeros((3, 4)))[0].tolist()


def test_no_observations_give_no_actions(policy: OnnxPolicy) -> None:
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
def test_what_is_no_observation_is_refused_with_what_is_expected(
    policy: OnnxPolicy, observation: Any
) -> None:
    with pytest.raises(
        ValueError, match=r"expected \(4\) for one or \(n, 4\) for many, of float32"
    ):
        policy.predict(observation)


def test_the_observation_stays_as_it_was(policy: OnnxPolicy) -> None:
    observation = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    before = observation.copy()

    policy.predict(observation)

    assert np.array_equal(observation, before)


def test_threads_get_the_actions_of_their_own_observations(policy: OnnxPolicy) -> None:
    batches = [np.random.default_rng(seed).normal(size=(32, 4)) for seed in range(64)]
    expected = [policy.predict(batch)[0].tolist() for batch in batches]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda batch: policy.predict(batch)[0].tolist(), batches))

    assert answers == expected
    assert len({tuple(actions) for actions in expected}) > 1


def test_the_card_says_what_the_agent_was_trained_in(policy: OnnxPolicy) -> None:
    assert policy.environment is not None
    assert json.loads(policy.environment)["id"] == "CartPole-v1"
    assert policy.card["algorithm"] == "stable_baselines3.ppo.ppo.PPO"
    assert policy.action_space == SpaceInfo("Discrete(2)", (), "int64", 0, 1)
    assert policy.observation_space.shape == (4,)
    assert {"mlflow", "numpy", "onnxruntime", "stable_baselines3", "torch", "gymnasium"} <= set(
        policy.card["versions"]
    )


def test_a_changed_graph_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved / "agent", tmp_path / "agent"))
    (folder / "policy.onnx").write_bytes((folder / "policy.onnx").read_bytes() + b"\0")

    with pytest.raises(
        ValueError,
        match=r"policy\.onnx has the digest .*the file has changed; save the agent again",
    ):
        OnnxPolicy.load(folder)
