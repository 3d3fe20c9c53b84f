"""LSTM states and action masks as inputs of a policy and of a served model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm

import mlflow_sb3
from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.inference.onnx_policy import OnnxPolicy

LSTM_HYPERPARAMS = {
    "n_steps": 64,
    "batch_size": 64,
    "policy_kwargs": {"lstm_hidden_size": 8, "n_lstm_layers": 2},
}


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseAlgorithm, Path]:
    """A RecurrentPPO agent for CartPole without velocities, and the folder of its model."""
    spec_json = env_spec.compose_spec(
        "CartPole-v1", wrappers=["rl_zoo3.wrappers:MaskVelocityWrapper"]
    )
    model = builder.build_algorithm("ppo_lstm", spec_json, LSTM_HYPERPARAMS, seed=0).learn(256)
    folder = tmp_path_factory.mktemp("recurrent") / "model"
    mlflow_sb3.save_model(model, folder, environment=spec_json)
    return model, folder


@pytest.fixture(scope="module")
def recurrent_policy(recurrent: tuple[BaseAlgorithm, Path]) -> OnnxPolicy:
    return OnnxPolicy.load(recurrent[1] / "agent")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model of a MaskablePPO agent with three actions."""
    spec_json = env_spec.compose_spec("tests.environments:Masked-v0")
    hyperparams = {"n_steps": 32, "batch_size": 32}
    model = builder.build_algorithm("ppo_mask", spec_json, hyperparams, seed=0).learn(32)
    folder = tmp_path_factory.mktemp("masked") / "model"
    mlflow_sb3.save_model(model, folder, environment=spec_json)
    return folder


@pytest.fixture(scope="module")
def masked_policy(masked: Path) -> OnnxPolicy:
    return OnnxPolicy.load(masked / "agent")


@pytest.mark.train
def test_actions_and_states_over_time_equal_those_of_sb3(
    recurrent: tuple[BaseAlgorithm, Path], recurrent_policy: OnnxPolicy
) -> None:
    observations = np.random.default_rng(0).normal(size=(20, 3, 4)).astype(np.float32)
    state = sb3_state = None

    for step, batch in enumerate(observations):
        starts = np.array([step == 0, step % 5 == 0, step == 7])
        actions, state = recurrent_policy.predict(batch, state, starts)
        expected, sb3_state = recurrent[0].predict(batch, sb3_state, starts, deterministic=True)
        assert actions.tolist() == expected.tolist()

    assert state is not None
    assert sb3_state is not None
    assert [part.shape for part in state] == [(2, 3, 8)] * 2
    assert all(
        part == pytest.approx(sb3_part, abs=1e-5)
        for part, sb3_part in zip(state, sb3_state, strict=True)
    )


def test_a_single_observation_has_a_state_too(recurrent_policy: OnnxPolicy) -> None:
    action, state = recurrent_policy.predict(np.zeros(4))

    assert action.shape == ()
    assert recurrent_policy.predict(np.zeros(4), state)[0].shape == ()


def test_a_served_model_receives_the_state_and_returns_the_next_one(
    recurrent: tuple[BaseAlgorithm, Path],
) -> None:
    model, folder = recurrent
    served = mlflow.pyfunc.load_model(str(folder))
    observations = np.random.default_rng(1).normal(size=(5, 3, 4))
    state = {name: np.zeros((3, 2, 8)) for name in ("hidden", "cell")}
    sb3_state = None

    for step, batch in enumerate(observations):
        starts = np.full(3, step == 0)
        answer = served.predict({"observation": batch, "episode_start": starts, **state})
        state = {name: answer[name].astype(np.float64) for name in state}
        expected, sb3_state = model.predict(
            batch.astype(np.float32), sb3_state, starts, deterministic=True
        )
        assert answer["action"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            (np.zeros((2, 3, 8)), np.zeros((2, 3, 7))),
            r"state has the shapes \[\(2, 3, 8\), \(2, 3, 7\)\]. Expected 2 arrays of shape",
        ),
        ((np.zeros((2, 3, 8)),), r"state has the shapes \[\(2, 3, 8\)\]. Expected 2 arrays"),
        ((np.full((2, 3, 8), np.nan), np.zeros((2, 3, 8))), "state contains NaN"),
        ((np.full((2, 3, 8), np.inf), np.zeros((2, 3, 8))), "state contains NaN or infinity"),
        ("a state", "state cannot be converted to arrays"),
        (5, "state cannot be converted to arrays"),
    ],
)
def test_an_invalid_state_is_rejected(
    state: Any, message: str, recurrent_policy: OnnxPolicy
) -> None:
    with pytest.raises(ValueError, match=message):
        recurrent_policy.predict(np.zeros((3, 4)), state)


def test_episode_starts_of_another_shape_are_rejected(recurrent_policy: OnnxPolicy) -> None:
    state = (np.zeros((2, 3, 8)), np.zeros((2, 3, 8)))

    with pytest.raises(ValueError, match=r"episode_start has the shape \(2,\)\. Expected \(3,\)"):
        recurrent_policy.predict(np.zeros((3, 4)), state, np.zeros(2, bool))


def test_a_recurrent_policy_rejects_an_empty_batch(recurrent_policy: OnnxPolicy) -> None:
    with pytest.raises(
        ValueError, match=r"The batch is empty\. A recurrent policy needs at least one"
    ):
        recurrent_policy.predict(np.zeros((0, 4)))


def test_a_masked_policy_chooses_only_valid_actions(masked_policy: OnnxPolicy) -> None:
    masks = np.random.default_rng(0).random((500, 3)) < 0.4
    masks[np.arange(500), np.random.default_rng(1).integers(3, size=500)] = True
    batch = np.random.default_rng(2).uniform(-1, 1, (500, 2))

    for deterministic in (True, False):
        actions, _ = masked_policy.predict(batch, deterministic=deterministic, action_masks=masks)
        assert masks[np.arange(500), actions].all()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            None,
            r"action_masks is missing, but .* with masks\. Expected booleans of shape \(2, 3\)",
        ),
        (
            np.ones((2, 2), bool),
            r"action_masks has the shape \(2, 2\)\. Expected booleans of shape \(2, 3\)",
        ),
        ([[True, True, True], [False, False, False]], "action_masks forbids all actions in row 1"),
    ],
)
def test_invalid_masks_are_rejected(masks: Any, message: str, masked_policy: OnnxPolicy) -> None:
    with pytest.raises(ValueError, match=message):
        masked_policy.predict(np.zeros((2, 2)), action_masks=masks)


def test_a_policy_without_masks_rejects_masks(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"the agent was trained without masks\. Leave it out"):
        OnnxPolicy.load(saved / "agent").predict(np.zeros(4), action_masks=[True, True])


def test_a_served_model_receives_masks(masked: Path) -> None:
    served = mlflow.pyfunc.load_model(str(masked))
    masks = np.array([[False, True, False], [True, False, False]])

    answer = served.predict({"observation": np.zeros((2, 2)), "action_masks": masks})

    assert answer.tolist() == [1, 0]
    with pytest.raises(MlflowException, match="action_masks"):
        served.predict({"observation": np.zeros((2, 2))})


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            [[0, 0, 1, 1, 1]],
            "forbids all actions in row 0. Allow at least one value of every",
        ),
        ([["False"] * 5], "action_masks has the dtype <U5"),
        ([[np.nan] * 5], "action_masks has the dtype float64"),
    ],
)
def test_every_integer_of_an_action_needs_a_valid_value(
    masks: Any, message: str, tmp_path: Path
) -> None:
    spec_json = env_spec.compose_spec(
        "tests.environments:Named-v0", kwargs={"observations": "vector", "actions": "MultiDiscrete"}
    )
    model = builder.build_algorithm("ppo_mask", spec_json, {}, seed=0)
    mlflow_sb3.save_model(model, tmp_path / "model", environment=spec_json)
    policy = mlflow_sb3.load_policy(str(tmp_path / "model"))

    with pytest.raises(ValueError, match=message):
        policy.predict(np.zeros((1, 3)), action_masks=masks)
