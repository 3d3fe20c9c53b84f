from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3 import comparison, contender, environment, pictures, promotion, registry
from mlflow_sb3.evaluation import Episodes
from mlflow_sb3.registry import Version

Register = Callable[[float], Version]


@pytest.fixture
def register(store: str) -> Register:  # noqa: ARG001 a store to register in
    """Registers an agent that pushes to where gain times the pole's angle and speed points: the better, the larger."""

    def make(gain: float) -> Version:
        model = PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": []}, device="cpu")
        weight, bias = model.policy.get_submodule("action_net").parameters()
        with torch.no_grad():
            weight[:] = bias[:] = 0.0
            weight[1] = torch.tensor([0.0, 0.0, gain, gain / 4])
        info = mlflow_sb3.log_model(model, name="agent", registered_model_name="agent")
        return registry.find("agent", number=int(str(info.registered_model_version)))

    return make


def aliases() -> dict[str, int]:
    return {alias: int(number) for alias, number in MlflowClient().get_registered_model("agent").aliases.items()}


def hold(challenger: Version) -> promotion.Promotion:
    held = promotion.hold(challenger, registry.champion("agent", "champion"), episodes=20)
    held.apply("champion")
    return held


def test_the_better_agent_becomes_champion_and_the_former_one_keeps_a_name(register: Register) -> None:
    worse, better = register(-10.0), register(10.0)

    verdicts = [hold(version).verdict.verdict for version in (worse, better)]

    assert verdicts == ["promote", "promote"]
    assert aliases() == {"champion": better.number, "previous-champion": worse.number}


def test_the_worse_agent_is_rejected_and_told_why(register: Register) -> None:
    better, worse = register(10.0), register(-10.0)
    hold(better)

    held = hold(worse)

    tags = MlflowClient().get_model_version("agent", str(worse.number)).tags
    assert held.verdict.verdict == tags["mlflow_sb3.verdict"] == "reject"
    assert tags["mlflow_sb3.reason"] == held.verdict.reason
    assert held.metrics["promotion/mean_difference"] < 0
    assert aliases() == {"champion": better.number}


def test_an_equal_agent_ties_and_the_champion_stays(register: Register) -> None:
    first, second = register(10.0), register(10.0)
    hold(first)

    assert hold(second).verdict.verdict == "tie"
    assert aliases() == {"champion": first.number}


def test_both_play_the_seeds_of_their_pair(register: Register) -> None:
    first, second = register(10.0), register(-10.0)
    hold(first)

    held = hold(second)

    seed = comparison.gate_seed("agent", second.model_id, first.model_id, 20)
    assert held.record["episodes"]["seed"] == environment.seeds(seed, "gate", 20)


def test_a_champion_that_came_meanwhile_is_not_overwritten(register: Register) -> None:
    first, second = register(10.0), register(10.0)
    held = promotion.hold(second, None, episodes=2)
    registry.set_alias("agent", "champion", first.number)

    with pytest.raises(MlflowException, match="champion of agent is agent/1 now, and was None when the games began; promote again"):
        held.apply("champion")

    assert aliases() == {"champion": first.number}
    assert "mlflow_sb3.verdict" not in MlflowClient().get_model_version("agent", str(second.number)).tags


def test_the_champion_cannot_challenge_itself(register: Register) -> None:
    version = register(10.0)
    hold(version)

    with pytest.raises(MlflowException, match="agent/1 is the champion already"):
        hold(version)


def test_agents_of_different_environments_are_not_compared(register: Register) -> None:
    hold(register(10.0))
    model = PPO("MlpPolicy", gymnasium.make("CartPole-v1", max_episode_steps=50), device="cpu")
    info = mlflow_sb3.log_model(model, name="agent", registered_model_name="agent")

    with pytest.raises(MlflowException, match="agent/2 and agent/1 were trained in different environments"):
        hold(registry.find("agent", number=int(str(info.registered_model_version))))
    assert aliases() == {"champion": 1}


def test_an_agent_that_names_no_environment_cannot_play(store: str, tmp_path: Path) -> None:  # noqa: ARG001
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "agent.zip")
    mlflow_sb3.log_model(PPO.load(tmp_path / "agent.zip", device="cpu"), name="agent", registered_model_name="agent")

    with pytest.raises(MlflowException, match="agent/1 names no environment to play in"):
        contender.load(registry.find("agent", number=1))


def test_the_histogram_counts_every_episode() -> None:
    figure = pictures.histogram(Episodes(np.arange(5), np.array([1.0, 1.0, 2.0, 3.0, 9.0]), np.ones(5, dtype=np.int64)), "title")

    (axes,) = figure.axes
    assert sum(patch.get_height() for patch in axes.patches) == 5  # type: ignore[attr-defined]
    assert axes.get_title() == "title"
