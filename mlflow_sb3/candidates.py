"""The agents that training passed on its way, and which of them to keep.

Keeping the first agent that was best in ten episodes keeps lucky ones. Here every candidate is played again on fresh
seeds, with fewer candidates and more episodes in each round, until one is left.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3 import environment, evaluation, native, normalization
from mlflow_sb3.evaluation import Episodes, Policy
from mlflow_sb3.native import NativePolicy
from mlflow_sb3.normalization import Statistics

CHECKPOINTS = 50
"""How many times training stops to play the agent that it has."""
CHECKPOINT_EPISODES = 10
ROUNDS = ((8, 20), (4, 50), (2, 200))
"""Candidates that enter a round, and the fresh episodes that each of them plays in it."""


@dataclass
class Candidate:
    """An agent of one moment of training: SB3's own file of it, and the returns of the episodes it played."""

    step: int
    agent: bytes = field(repr=False)
    training_score: float
    statistics: Statistics | None = field(default=None, repr=False)
    """What its VecNormalize had learned by then."""
    returns: list[float] = field(default_factory=list, repr=False)

    @property
    def score(self) -> float:
        """Mean return over fresh episodes, none of which chose it during training."""
        return sum(self.returns) / len(self.returns)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Best last: by fresh episodes, then by those during training, then the longer trained one."""
        return (self.score if self.returns else 0.0, self.training_score, self.step)


class Checkpoints(BaseCallback):
    """Plays the agent at even distances and keeps the best few.

    It plays between rollouts, when an update is complete, in environments and on seeds of its own and without drawing
    from a generator that training uses: training goes the same way with it and without it.
    """

    def __init__(self, description: str, *, seed: int, every: int) -> None:
        """Play the environment of the ``description`` once in ``every`` steps, on seeds from the stream ``choice``."""
        super().__init__()
        self.kept: list[Candidate] = []
        self._make_policy = partial(_policy, description=description)
        self._play = partial(_play, description, seed, start=0, count=CHECKPOINT_EPISODES)
        self._every = every
        self._due = every

    def _on_training_start(self) -> None:
        self._due += self.model.num_timesteps
        self._policy = self._make_policy(self.model)

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= self._due:
            self._due = self.model.num_timesteps + self._every
            best = sorted([*self.kept, self._checkpoint()], key=lambda candidate: candidate.rank)
            self.kept = best[-ROUNDS[0][0] + 1 :]

    def _on_training_end(self) -> None:
        self.kept.append(self._checkpoint())

    def _on_step(self) -> bool:
        return True

    def _checkpoint(self) -> Candidate:
        step = self.model.num_timesteps
        summary = evaluation.summarize(self._play(self._policy))
        self.logger.record("eval/mean_reward", summary.mean_return)
        self.logger.record("eval/mean_ep_length", summary.mean_length)
        self.logger.dump(step)
        return Candidate(step, native.archive(self.model), summary.mean_return, normalization.read(self.model))


def choose(
    model: BaseAlgorithm,
    candidates: Sequence[Candidate],
    description: str,
    *,
    seed: int,
    on_episode: Callable[[], object] = lambda: None,
) -> Candidate:
    """Play the candidates on fresh seeds, round by round, and put the winner's weights into the model.

    Args:
        model: Lends its policy to each candidate in turn; holds the winner's parameters in the end.
        candidates: At least one; their ``returns`` are filled in.
        description: The environment, as ``EnvSpec`` JSON.
        seed: The episodes are those of the stream ``choice`` behind the ones that training played.
        on_episode: Called after every episode, for a progress bar.
    """
    start = CHECKPOINT_EPISODES
    policy = _policy(model, description)
    for entrants, episodes in ROUNDS:
        candidates = sorted(candidates, key=lambda candidate: candidate.rank)[-entrants:]
        for candidate in candidates:
            _become(model, candidate)
            played = _play(description, seed, policy, start=start, count=episodes, on_episode=on_episode)
            candidate.returns += played.returns.tolist()
        start += episodes
    best = max(candidates, key=lambda candidate: candidate.rank)
    _become(model, best)
    return best


def count_episodes(candidates: int) -> int:
    """How many episodes ``choose`` plays among so many candidates."""
    return sum(min(candidates, entrants) * episodes for entrants, episodes in ROUNDS)


def _become(model: BaseAlgorithm, candidate: Candidate) -> None:
    """Put a candidate's weights into a model, and what it had learned to normalize with into the model's environments."""
    model.set_parameters(io.BytesIO(candidate.agent), device=model.device)  # type: ignore[arg-type]  # takes files too
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is not None and candidate.statistics is not None:
        normalization.put(vec_normalize, candidate.statistics)


def _policy(model: BaseAlgorithm, description: str) -> NativePolicy:
    with environment.remake(description) as env:
        spaces = env.observation_space, env.action_space
    return NativePolicy.of(model, *spaces)


def _play(description: str, seed: int, policy: Policy, *, start: int, count: int, **progress: Any) -> Episodes:
    seeds = environment.seeds(seed, "choice", count, start=start)
    return evaluation.play(policy, partial(environment.remake, description), seeds, **progress)
