from __future__ import annotations

import io
import json
from typing import Any

import gymnasium
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec, seeds
from mlflow_sb3.training import checkpoint_selection
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import CheckpointCallback
from tests.environments import OneStep
from tests.training.test_snapshot import Numbers

ONE_STEP = env_spec.spec_to_json(gymnasium.spec("OneStep-v0"))
LEARNING: dict[str, dict[str, Any]] = {
    "a2c": {},
    "ddpg": {"learning_starts": 16, "batch_size": 16, "buffer_size": 200},
    "dqn": {"learning_starts": 16, "batch_size": 16, "buffer_size": 200},
    "ppo": {"n_steps": 16, "batch_size": 16},
    "sac": {"learning_starts": 16, "batch_size": 16, "buffer_size": 200},
    "td3": {"learning_starts": 16, "batch_size": 16, "buffer_size": 200},
}


def short(env_id: str) -> str:
    """An environment whose episodes end after five steps."""
    return json.dumps(
        json.loads(env_spec.spec_to_json(gymnasium.spec(env_id))) | {"max_episode_steps": 5}
    )


def built(algo: str, description: str) -> BaseAlgorithm:
    return algorithms.build(algo, description, LEARNING[algo], seed=3)


def watched(
    model: BaseAlgorithm, description: str, *, every: int, seed: int = 0
) -> CheckpointCallback:
    """Let a model learn with checkpoints."""
    checkpoints = CheckpointCallback(
        CheckpointEvaluator(model, description, seed=seed), every=every
    )
    model.learn(64, callback=checkpoints)
    return checkpoints


def chosen(entrants: list[Checkpoint], **kwargs: Any) -> tuple[BaseAlgorithm, Checkpoint]:
    """The model in which candidates were played, and the one that was kept."""
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=1)
    return model, checkpoint_selection.choose(
        model, entrants, CheckpointEvaluator(model, ONE_STEP, seed=0), **kwargs
    )


def always(action: int) -> Checkpoint:
    """An agent that takes one action whatever it sees."""
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=0)
    with torch.no_grad():
        weights = dict(model.policy.named_parameters())
        weights["action_net.weight"][:] = 0.0
        weights["action_net.bias"][:] = torch.tensor([20.0, 0.0] if action == 0 else [0.0, 20.0])
    agent = io.BytesIO()
    model.save(agent)
    return Checkpoint(step=action, agent=agent.getvalue(), training_score=float(action))


@pytest.mark.parametrize(
    ("algo", "env_id"),
    [("dqn", "CartPole-v1"), ("ppo", "CartPole-v1"), ("a2c", "CartPole-v1")]
    + [(algo, "Pendulum-v1") for algo in ("ppo", "a2c", "sac", "td3", "ddpg")],
)
def test_training_goes_the_same_way_with_checkpoints_and_without(algo: str, env_id: str) -> None:
    description = short(env_id)

    plain = built(algo, description).learn(64).policy.state_dict()
    model = built(algo, description)
    checkpoints = watched(model, description, every=8, seed=3)

    assert len(checkpoints.kept) > 1
    assert [
        name
        for name, value in plain.items()
        if not torch.equal(value, model.policy.state_dict()[name])
    ] == []


def test_checkpoints_play_the_agent_as_it_will_act() -> None:
    undecided = PPO(
        "MlpPolicy",
        gymnasium.make("OneStep-v0"),
        device="cpu",
        seed=0,
        n_steps=16,
        batch_size=16,
        learning_rate=1e-9,
    )
    with torch.no_grad():
        dict(undecided.policy.named_parameters())["action_net.bias"][:] = torch.tensor([0.0, 0.5])

    checkpoints = watched(undecided, ONE_STEP, every=16)

    assert [candidate.training_score for candidate in checkpoints.kept] == [1.0] * len(
        checkpoints.kept
    )


def test_the_last_agent_is_a_candidate_and_the_best_few_are_kept() -> None:
    model = built("dqn", ONE_STEP)

    checkpoints = watched(model, ONE_STEP, every=1)

    assert len(checkpoints.kept) == checkpoint_selection.ROUNDS[0][0]
    assert checkpoints.kept[-1].step == model.num_timesteps == 64
    again = algorithms.find_algorithm("dqn").load(io.BytesIO(checkpoints.kept[-1].agent))
    assert all(
        torch.equal(value, again.policy.state_dict()[name])
        for name, value in model.policy.state_dict().items()
    )


def test_an_agent_that_is_better_on_fresh_episodes_is_kept_over_a_luckier_one() -> None:
    better, lucky = always(1), always(0)
    better.training_score, lucky.training_score = 0.2, 500.0

    model, kept = chosen([better, lucky])

    assert kept is better
    assert (better.score, lucky.score) == (1.0, 0.0)
    assert model.predict(model.observation_space.sample(), deterministic=True)[0] == 1


def test_among_equals_the_longer_trained_agent_is_kept() -> None:
    early, late = always(1), always(1)
    early.step, late.step = 10, 20

    _, kept = chosen([late, early])

    assert kept is late


def test_the_choice_is_made_on_episodes_that_training_did_not_play() -> None:
    model = built("ppo", ONE_STEP)
    OneStep.seeds.clear()
    checkpoints = watched(model, ONE_STEP, every=16, seed=5)
    during_training = set(OneStep.seeds)
    OneStep.seeds.clear()

    checkpoint_selection.choose(
        model, checkpoints.kept, CheckpointEvaluator(model, ONE_STEP, seed=5)
    )

    fresh = set(OneStep.seeds)
    assert set(seeds.generate_episode_seeds(5, "choice", 10)) < during_training
    assert len(fresh) == sum(episodes for _, episodes in checkpoint_selection.ROUNDS)
    assert fresh.isdisjoint(during_training)


def test_what_sb3_recorded_and_had_not_yet_dumped_is_not_lost() -> None:
    numbers = Numbers()
    model = built("ppo", ONE_STEP)
    model.set_logger(Logger(folder=None, output_formats=[numbers]))

    watched(model, ONE_STEP, every=64)

    assert max(step for step, key, _ in numbers.rows if key == "train/loss") == model.num_timesteps
    assert [step for step, key, _ in numbers.rows if key == "eval/mean_reward"] == [
        model.num_timesteps
    ]


def test_every_round_has_fewer_candidates_and_more_episodes() -> None:
    entrants = [always(step % 2) for step in range(8)]
    told: list[None] = []

    chosen(entrants, on_episode=lambda: told.append(None))

    assert sorted(len(candidate.returns) for candidate in entrants) == [
        20,
        20,
        20,
        20,
        70,
        70,
        270,
        270,
    ]
    assert len(told) == checkpoint_selection.count_episodes(8) == 8 * 20 + 4 * 50 + 2 * 200
