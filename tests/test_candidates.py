from __future__ import annotations

import io
import json
from typing import Any

import gymnasium
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3 import algorithm, candidates, environment
from mlflow_sb3.candidates import Candidate, Checkpoints
from tests.environments import OneStep

ONE_STEP = environment.describe(gymnasium.spec("OneStep-v0"))
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
    return json.dumps(json.loads(environment.describe(gymnasium.spec(env_id))) | {"max_episode_steps": 5})


def learned(algo: str, description: str, callback: BaseCallback | None) -> BaseAlgorithm:
    model = algorithm.build(algo, description, LEARNING[algo], seed=3)
    return model.learn(64, callback=callback)


def always(action: int) -> Candidate:
    """An agent that takes one action whatever it sees."""
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=0)
    with torch.no_grad():
        weights = dict(model.policy.named_parameters())
        weights["action_net.weight"][:] = 0.0
        weights["action_net.bias"][:] = torch.tensor([20.0, 0.0] if action == 0 else [0.0, 20.0])
    agent = io.BytesIO()
    model.save(agent)
    return Candidate(step=action, agent=agent.getvalue(), training_score=float(action))


@pytest.mark.parametrize(
    ("algo", "env_id"),
    [("dqn", "CartPole-v1"), ("ppo", "CartPole-v1"), ("a2c", "CartPole-v1")]
    + [(algo, "Pendulum-v1") for algo in ("ppo", "a2c", "sac", "td3", "ddpg")],
)
def test_training_goes_the_same_way_with_checkpoints_and_without(algo: str, env_id: str) -> None:
    description = short(env_id)
    checkpoints = Checkpoints(description, seed=3, every=8)

    plain = learned(algo, description, None).policy.state_dict()
    watched = learned(algo, description, checkpoints).policy.state_dict()

    assert len(checkpoints.kept) > 1
    assert [name for name, value in plain.items() if not torch.equal(value, watched[name])] == []


def test_checkpoints_play_the_agent_as_it_will_act() -> None:
    undecided = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=0, n_steps=16, batch_size=16, learning_rate=1e-9)
    with torch.no_grad():
        dict(undecided.policy.named_parameters())["action_net.bias"][:] = torch.tensor([0.0, 0.5])
    checkpoints = Checkpoints(ONE_STEP, seed=0, every=16)

    undecided.learn(64, callback=checkpoints)

    assert [candidate.training_score for candidate in checkpoints.kept] == [1.0] * len(checkpoints.kept)


def test_the_last_agent_is_a_candidate_and_the_best_few_are_kept() -> None:
    checkpoints = Checkpoints(ONE_STEP, seed=0, every=1)

    model = learned("dqn", ONE_STEP, checkpoints)

    assert len(checkpoints.kept) == candidates.ROUNDS[0][0]
    assert checkpoints.kept[-1].step == model.num_timesteps == 64
    again = algorithm.find("dqn").load(io.BytesIO(checkpoints.kept[-1].agent))
    assert all(torch.equal(value, again.policy.state_dict()[name]) for name, value in model.policy.state_dict().items())


def test_an_agent_that_is_better_on_fresh_episodes_is_kept_over_a_luckier_one() -> None:
    better, lucky = always(1), always(0)
    better.training_score, lucky.training_score = 0.2, 500.0
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=1)

    kept = candidates.choose(model, [better, lucky], ONE_STEP, seed=0)

    assert kept is better
    assert (better.score, lucky.score) == (1.0, 0.0)
    assert model.predict(model.observation_space.sample(), deterministic=True)[0] == 1


def test_among_equals_the_longer_trained_agent_is_kept() -> None:
    early, late = always(1), always(1)
    early.step, late.step = 10, 20
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=1)

    assert candidates.choose(model, [late, early], ONE_STEP, seed=0) is late


def test_the_choice_is_made_on_episodes_that_training_did_not_play() -> None:
    checkpoints = Checkpoints(ONE_STEP, seed=5, every=16)
    OneStep.seeds.clear()
    model = learned("ppo", ONE_STEP, checkpoints)
    during_training = set(OneStep.seeds)
    OneStep.seeds.clear()

    candidates.choose(model, checkpoints.kept, ONE_STEP, seed=5)

    fresh = set(OneStep.seeds)
    assert set(environment.seeds(5, "choice", 10)) < during_training
    assert len(fresh) == sum(episodes for _, episodes in candidates.ROUNDS)
    assert fresh.isdisjoint(during_training)


def test_every_round_has_fewer_candidates_and_more_episodes() -> None:
    entrants = [always(step % 2) for step in range(8)]
    told: list[None] = []
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=1)

    candidates.choose(model, entrants, ONE_STEP, seed=0, on_episode=lambda: told.append(None))

    assert sorted(len(candidate.returns) for candidate in entrants) == [20, 20, 20, 20, 70, 70, 270, 270]
    assert len(told) == candidates.count_episodes(8) == 8 * 20 + 4 * 50 + 2 * 200
