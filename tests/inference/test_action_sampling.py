"""Compare sampled actions with those of SB3 by statistical tests.

The tests are Kolmogorov-Smirnov for continuous actions and chi-squared for discrete ones.
"""

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
from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.inference import action_sampling
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from tests.matrix import mark_cases

SIGNIFICANCE_LEVEL = 1e-3
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


def build(algo: str, actions: str, hyperparams: dict[str, Any]) -> tuple[BaseAlgorithm, str]:
    description = env_spec.compose_spec(
        "tests.environments:Named-v0", kwargs={"observations": "vector", "actions": actions}
    )
    return builder.build_algorithm(algo, description, hyperparams, seed=0), description


@pytest.fixture(scope="module", params=mark_cases(AGENTS, ("categorical", "squashed gSDE")))
def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BaseAlgorithm, OnnxPolicy, Any]:
    model, description = build(*AGENTS[request.param])
    if request.param == "epsilon-greedy":
        model.exploration_rate = 0.4  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("agent") / "model"
    mlflow_sb3.save_model(model, folder, environment=description)
    with env_spec.make_from_spec(description) as env:
        masks = env.get_wrapper_attr("action_masks")() if request.param == "masked" else None
        spaces = env.observation_space, env.action_space
    return model, OnnxPolicy.load(folder / "agent"), (spaces, masks)


def sample_with_sb3(model: BaseAlgorithm, spaces: Any, masks: Any) -> NDArray[Any]:
    """Return ``SAMPLES`` actions of SB3 for one observation.

    DQN explores in a whole batch or not at all, so it gets batches of one observation.
    """
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


def compute_p_values(samples: NDArray[Any], sb3_samples: NDArray[Any]) -> list[float]:
    """Return the p-values of the hypothesis that both samples have the same distribution.

    Continuous actions are compared by component and by their sum, discrete ones as a whole.
    """
    samples = samples.reshape(len(samples), -1)
    sb3_samples = sb3_samples.reshape(len(sb3_samples), -1)
    if samples.dtype.kind == "f":
        columns = list(zip(samples.T, sb3_samples.T, strict=True))
        columns.append((samples.sum(axis=1), sb3_samples.sum(axis=1)))
        return [float(stats.ks_2samp(first, second).pvalue) for first, second in columns]
    actions = sorted({tuple(row) for row in [*samples.tolist(), *sb3_samples.tolist()]})
    table = [
        [sum(tuple(row) == action for row in rows.tolist()) for action in actions]
        for rows in (samples, sb3_samples)
    ]
    return [float(stats.chi2_contingency(table).pvalue)] if len(actions) > 1 else [1.0]


def test_samples_have_the_distribution_of_sb3(agent: tuple[BaseAlgorithm, OnnxPolicy, Any]) -> None:
    model, policy, (spaces, masks) = agent
    sb3_samples = sample_with_sb3(model, spaces, masks)
    batch = np.full((SAMPLES, 3), 0.3, np.float32)
    allowed = None if masks is None else np.tile(masks, (SAMPLES, 1))

    samples, _ = policy.predict(batch, deterministic=False, seed=7, action_masks=allowed)

    assert samples.shape == sb3_samples.shape
    assert samples.dtype == spaces[1].dtype
    assert all(spaces[1].contains(action) for action in samples)
    if policy.distribution["kind"] == "deterministic":
        assert samples == pytest.approx(sb3_samples, abs=1e-5)
    else:
        assert len(np.unique(samples, axis=0)) > 1
        assert min(compute_p_values(samples, sb3_samples)) > SIGNIFICANCE_LEVEL


def test_only_a_seed_makes_samples_reproducible(
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


def test_the_statistical_tests_detect_other_distributions() -> None:
    rng = np.random.default_rng(0)

    assert (
        min(compute_p_values(rng.normal(0, 1, (SAMPLES, 2)), rng.normal(0, 1.1, (SAMPLES, 2))))
        < SIGNIFICANCE_LEVEL
    )
    assert (
        min(
            compute_p_values(
                rng.integers(3, size=SAMPLES), rng.choice(3, SAMPLES, p=[0.28, 0.36, 0.36])
            )
        )
        < SIGNIFICANCE_LEVEL
    )


def test_the_params_of_pyfunc_select_and_seed_sampling(tmp_path: Path) -> None:
    model, description = build("ppo", "Box", {})
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


def test_an_unknown_distribution_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"cannot be sampled \(distribution 'unknown'\)\. Call predict with deterministic",
    ):
        action_sampling.sample_actions(
            {"kind": "unknown"}, {"action": np.zeros(1)}, np.random.default_rng(0)
        )
