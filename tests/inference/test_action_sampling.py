"""Sampled actions follow the distribution of SB3: its own samples and ours, compared at one level of significance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from stable_baselines3.common.base_class import BaseAlgorithm

import mlflow_sb3
from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.inference import action_sampling
from mlflow_sb3.inference.onnx_policy import OnnxPolicy

LEVEL = 1e-3
SAMPLES = 20_000
AGENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "categorical": ("ppo", "Discrete", {}),
    "several choices": ("a2c", "MultiDiscrete", {}),
    "bits": ("ppo", "MultiBinary", {}),
    "masked": ("ppo_mask", "MultiDiscrete", {}),
    "recurrent": ("ppo_lstm", "Discrete", {}),
    "gaussian": ("ppo", "Box", {}),
    "squashed gaussian": ("sac", "Box", {}),
    "gSDE": ("ppo", "Box", {"use_sde": True}),
    "squashed gSDE": ("sac", "Box", {"use_sde": True}),
    "epsilon-greedy": (
        "dqn",
        "Discrete",
        {"exploration_initial_eps": 0.4, "exploration_final_eps": 0.4},
    ),
    "deterministic": ("td3", "Box", {}),
}


def built(algo: str, actions: str, hyperparams: dict[str, Any]) -> tuple[BaseAlgorithm, str]:
    description = env_spec.compose_spec(
        "tests.environments:Named-v0", kwargs={"observations": "vector", "actions": actions}
    )
    return algorithms.build(algo, description, hyperparams, seed=0), description


@pytest.fixture(scope="module", params=AGENTS.values(), ids=list(AGENTS))
def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BaseAlgorithm, OnnxPolicy, Any]:
    model, description = built(*request.param)
    if request.param[0] == "dqn":
        model.exploration_rate = 0.4  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("agent") / "model"
    mlflow_sb3.save_model(model, folder, environment=description)
    with env_spec.make_from_spec(description) as env:
        masks = env.get_wrapper_attr("action_masks")() if request.param[0] == "ppo_mask" else None
        spaces = env.observation_space, env.action_space
    return model, OnnxPolicy.load(folder / "agent"), (spaces, masks)


def of_sb3(model: BaseAlgorithm, spaces: Any, masks: Any) -> NDArray[Any]:
    """SB3's samples for one observation: with fresh noise for each, in one batch, but for DQN, which tosses one coin for a batch."""
    native = SB3Policy(model, *spaces)
    observation = np.full((1, 3), 0.3, np.float32)
    torch.manual_seed(5)
    np.random.seed(5)
    model.action_space.seed(5)
    if type(model).__name__ == "DQN":
        return np.concatenate(
            [native.predict(observation, deterministic=False)[0] for _ in range(SAMPLES)]
        )
    if model.use_sde:
        model.policy.reset_noise(SAMPLES)  # type: ignore[operator]
    batch = np.repeat(observation, SAMPLES, axis=0)
    actions = [
        native.predict(
            batch,
            deterministic=False,
            action_masks=None if masks is None else np.tile(masks, (SAMPLES, 1)),
        )[0]
    ]
    return np.concatenate(actions)


def p_values(ours: NDArray[Any], theirs: NDArray[Any]) -> list[float]:
    """Of the hypothesis that both come from one distribution, for each number of an action and for pairs of them."""
    ours, theirs = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    if ours.dtype.kind == "f":
        columns = [(mine, other) for mine, other in zip(ours.T, theirs.T, strict=True)]
        return [
            float(stats.ks_2samp(mine, other).pvalue)
            for mine, other in [*columns, (ours.sum(axis=1), theirs.sum(axis=1))]
        ]
    kinds = sorted({tuple(row) for row in [*ours.tolist(), *theirs.tolist()]})
    table = [
        [sum(tuple(row) == kind for row in rows.tolist()) for kind in kinds]
        for rows in (ours, theirs)
    ]
    return [float(stats.chi2_contingency(table).pvalue)] if len(kinds) > 1 else [1.0]


def test_samples_are_those_of_sb3(agent: tuple[BaseAlgorithm, OnnxPolicy, Any]) -> None:
    model, policy, (spaces, masks) = agent
    theirs = of_sb3(model, spaces, masks)
    batch = np.full((SAMPLES, 3), 0.3, np.float32)
    allowed = None if masks is None else np.tile(masks, (SAMPLES, 1))

    ours, _ = policy.predict(batch, deterministic=False, seed=7, action_masks=allowed)

    assert ours.shape == theirs.shape
    assert ours.dtype == spaces[1].dtype
    assert all(spaces[1].contains(action) for action in ours)
    if policy.distribution["kind"] == "deterministic":
        assert ours == pytest.approx(theirs, abs=1e-5)
    else:
        assert len(np.unique(ours, axis=0)) > 1
        assert min(p_values(ours, theirs)) > LEVEL


def test_a_seed_gives_the_same_actions_again_and_none_gives_others(
    agent: tuple[BaseAlgorithm, OnnxPolicy, Any],
) -> None:
    _, policy, (_, masks) = agent
    batch = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    act: Callable[..., Any] = partial(
        policy.predict,
        batch,
        deterministic=False,
        action_masks=None if masks is None else np.tile(masks, (500, 1)),
    )

    first, again, other, unseeded = (act(seed=seed)[0].tolist() for seed in (3, 3, 4, None))

    assert first == again
    if policy.distribution["kind"] != "deterministic":
        assert other != first
        assert unseeded not in (first, other)


def test_a_wrong_distribution_is_noticed() -> None:
    """The comparison above can fail."""
    rng = np.random.default_rng(0)

    assert min(p_values(rng.normal(0, 1, (SAMPLES, 2)), rng.normal(0, 1.1, (SAMPLES, 2)))) < LEVEL
    assert (
        min(p_values(rng.integers(3, size=SAMPLES), rng.choice(3, SAMPLES, p=[0.28, 0.36, 0.36])))
        < LEVEL
    )


def test_pyfunc_samples_by_its_params(tmp_path: Path) -> None:
    model, description = built("ppo", "Box", {})
    mlflow_sb3.save_model(model, tmp_path / "model", environment=description)
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    batch = np.zeros((50, 3))

    sampled = served.predict(batch, params={"deterministic": False, "seed": 7})

    assert (
        sampled.tolist()
        == served.predict(batch, params={"deterministic": False, "seed": 7}).tolist()
    )
    assert (
        sampled.tolist()
        != served.predict(batch, params={"deterministic": False, "seed": 8}).tolist()
    )
    assert (
        served.predict(batch).tolist()
        == served.predict(batch, params={"deterministic": True}).tolist()
    )
    assert len(np.unique(sampled)) > 50


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"cannot be sampled \(unknown\); call predict with deterministic=True"
    ):
        action_sampling.sample_actions(
            {"kind": "unknown"}, {"action": np.zeros(1)}, np.random.default_rng(0)
        )
