"""Agents that remember, and agents that are told what is allowed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm

import mlflow_sb3
from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.inference.onnx_policy import OnnxPolicy

HIDDEN_VELOCITY = ["rl_zoo3.wrappers:MaskVelocityWrapper"]
SMALL = {
    "n_steps": 64,
    "batch_size": 64,
    "policy_kwargs": {"lstm_hidden_size": 8, "n_lstm_layers": 2},
}


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseAlgorithm, Path, str]:
    description = env_spec.compose_spec("CartPole-v1", wrappers=HIDDEN_VELOCITY)
    model = algorithms.build("ppo_lstm", description, SMALL, seed=0).learn(256)
    folder = tmp_path_factory.mktemp("recurrent") / "model"
    mlflow_sb3.save_model(model, folder, environment=description)
    return model, folder, description


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    description = env_spec.compose_spec("tests.environments:Masked-v0")
    model = algorithms.build(
        "ppo_mask", description, {"n_steps": 32, "batch_size": 32}, seed=0
    ).learn(32)
    folder = tmp_path_factory.mktemp("masked") / "model"
    mlflow_sb3.save_model(model, folder, environment=description)
    return folder, description


def test_a_state_is_carried_as_sb3_carries_it(recurrent: tuple[BaseAlgorithm, Path, str]) -> None:
    model, folder, _ = recurrent
    policy = OnnxPolicy.load(folder / "agent")
    observations = np.random.default_rng(0).normal(size=(20, 3, 4)).astype(np.float32)
    mine = theirs = None

    for step, batch in enumerate(observations):
        starts = np.array([step == 0, step % 5 == 0, step == 7])
        actions, mine = policy.predict(batch, mine, starts)
        expected, theirs = model.predict(batch, theirs, starts, deterministic=True)
        assert actions.tolist() == expected.tolist()

    assert mine is not None
    assert theirs is not None
    assert [part.shape for part in mine] == [(2, 3, 8)] * 2
    assert all(
        part == pytest.approx(other, abs=1e-5) for part, other in zip(mine, theirs, strict=True)
    )


def test_one_observation_has_a_state_too(recurrent: tuple[BaseAlgorithm, Path, str]) -> None:
    policy = OnnxPolicy.load(recurrent[1] / "agent")

    action, state = policy.predict(np.zeros(4))

    assert action.shape == ()
    assert policy.predict(np.zeros(4), state)[0].shape == ()


@pytest.mark.parametrize("n_envs", [1, 3, 13])
def test_episodes_with_a_memory_are_the_same_for_any_number_of_environments(
    n_envs: int, recurrent: tuple[BaseAlgorithm, Path, str]
) -> None:
    model, folder, description = recurrent
    seeds = generate_episode_seeds(0, "evaluation", 13)

    played = rollout.play_episodes(
        OnnxPolicy.load(folder / "agent"),
        partial(env_spec.make_from_spec, description),
        seeds,
        n_envs=n_envs,
    )

    assert played.returns.tolist() == [alone(model, description, seed) for seed in seeds]


def alone(model: BaseAlgorithm, description: str, seed: int) -> float:
    """The return of one episode in a plain loop with SB3."""
    total, state, start, over = 0.0, None, True, False
    with env_spec.make_from_spec(description) as env:
        observation, _ = env.reset(seed=seed)
        while not over:
            action, state = model.predict(observation, state, np.array([start]), deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, start, over = total + float(reward), False, terminated or truncated
    return total


def test_a_request_carries_the_state_and_the_answer_gives_it_back(
    recurrent: tuple[BaseAlgorithm, Path, str],
) -> None:
    model, folder, _ = recurrent
    served = mlflow.pyfunc.load_model(str(folder))
    observations = np.random.default_rng(1).normal(size=(5, 3, 4))
    memory = {name: np.zeros((3, 2, 8)) for name in ("hidden", "cell")}
    state = None

    for step, batch in enumerate(observations):
        starts = np.full(3, step == 0)
        answer = served.predict({"observation": batch, "episode_start": starts, **memory})
        memory = {name: answer[name].astype(np.float64) for name in memory}
        expected, state = model.predict(batch.astype(np.float32), state, starts, deterministic=True)
        assert answer["action"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            (np.zeros((2, 3, 8)), np.zeros((2, 3, 7))),
            r"state has the shapes \[\(2, 3, 8\), \(2, 3, 7\)\]; expected 2 arrays of \(2, 3, 8\)",
        ),
        ((np.zeros((2, 3, 8)),), r"state has the shapes \[\(2, 3, 8\)\]; expected 2 arrays"),
        ((np.full((2, 3, 8), np.nan), np.zeros((2, 3, 8))), "state contains NaN"),
        ((np.full((2, 3, 8), np.inf), np.zeros((2, 3, 8))), "state contains NaN or infinity"),
        ("a state", "state is no arrays"),
        (5, "state is no arrays"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    state: Any, says: str, recurrent: tuple[BaseAlgorithm, Path, str]
) -> None:
    with pytest.raises(ValueError, match=says):
        OnnxPolicy.load(recurrent[1] / "agent").predict(np.zeros((3, 4)), state)


def test_episode_starts_that_do_not_fit_are_refused(
    recurrent: tuple[BaseAlgorithm, Path, str],
) -> None:
    state = (np.zeros((2, 3, 8)), np.zeros((2, 3, 8)))

    with pytest.raises(ValueError, match=r"episode_start has the shape \(2,\); expected \(3,\)"):
        OnnxPolicy.load(recurrent[1] / "agent").predict(np.zeros((3, 4)), state, np.zeros(2, bool))


def test_only_what_is_allowed_is_done(masked: tuple[Path, str]) -> None:
    policy = OnnxPolicy.load(masked[0] / "agent")
    masks = np.random.default_rng(0).random((500, 3)) < 0.4
    masks[np.arange(500), np.random.default_rng(1).integers(3, size=500)] = True
    batch = np.random.default_rng(2).uniform(-1, 1, (500, 2))

    for deterministic in (True, False):
        actions, _ = policy.predict(batch, deterministic=deterministic, action_masks=masks)
        assert masks[np.arange(500), actions].all()


def test_masked_episodes_are_played_with_the_masks_of_the_environment(
    masked: tuple[Path, str],
) -> None:
    folder, description = masked

    played = rollout.play_episodes(
        OnnxPolicy.load(folder / "agent"), partial(env_spec.make_from_spec, description), [1, 2, 3]
    )

    assert played.lengths.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (
            None,
            r"action_masks are missing: the agent was trained with masks; expected booleans of shape \(2, 3\)",
        ),
        (
            np.ones((2, 2), bool),
            r"action_masks have the shape \(2, 2\); expected booleans of shape \(2, 3\)",
        ),
        ([[True, True, True], [False, False, False]], "action_masks allow nothing in row 1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: Any, says: str, masked: tuple[Path, str]) -> None:
    with pytest.raises(ValueError, match=says):
        OnnxPolicy.load(masked[0] / "agent").predict(np.zeros((2, 2)), action_masks=masks)


def test_masks_for_an_agent_without_are_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="the agent was trained without masks; leave them out"):
        OnnxPolicy.load(saved / "agent").predict(np.zeros(4), action_masks=[True, True])


def test_a_request_carries_masks(masked: tuple[Path, str]) -> None:
    served = mlflow.pyfunc.load_model(str(masked[0]))
    masks = np.array([[False, True, False], [True, False, False]])

    assert served.predict({"observation": np.zeros((2, 2)), "action_masks": masks}).tolist() == [
        1,
        0,
    ]
    with pytest.raises(MlflowException, match="action_masks"):
        served.predict({"observation": np.zeros((2, 2))})


def test_no_observation_for_an_agent_with_a_memory_is_refused(
    recurrent: tuple[BaseAlgorithm, Path, str],
) -> None:
    with pytest.raises(
        ValueError, match="there are no observations; a policy with a state takes at least one"
    ):
        OnnxPolicy.load(recurrent[1] / "agent").predict(np.zeros((0, 4)))


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ([[0, 0, 1, 1, 1]], "allow nothing in row 0; every choice needs a value"),
        ([["False"] * 5], "action_masks have the dtype <U5"),
        ([[np.nan] * 5], "action_masks have the dtype float64"),
    ],
)
def test_every_choice_needs_something_that_is_allowed(
    masks: Any, says: str, tmp_path: Path
) -> None:
    description = env_spec.compose_spec(
        "tests.environments:Named-v0", kwargs={"observations": "vector", "actions": "MultiDiscrete"}
    )
    mlflow_sb3.save_model(
        algorithms.build("ppo_mask", description, {}, seed=0),
        tmp_path / "model",
        environment=description,
    )

    with pytest.raises(ValueError, match=says):
        mlflow_sb3.load_policy(str(tmp_path / "model")).predict(
            np.zeros((1, 3)), action_masks=masks
        )
