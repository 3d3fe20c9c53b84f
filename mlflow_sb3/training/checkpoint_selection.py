"""The agents that training passed on its way, and which of them to keep.

Keeping the first agent that was best in ten episodes keeps lucky ones. Here every candidate is played again on fresh
seeds, with fewer candidates and more episodes in each round, until one is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3.envs import rollout
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator, EvaluationTask

CHECKPOINTS = 50
"""How many times in a training the agent that it has is played."""
CHECKPOINT_EPISODES = 10
ROUNDS = ((8, 20), (4, 50), (2, 200))
"""Candidates that enter a round, and the fresh episodes that each of them plays in it."""


class CheckpointCallback(BaseCallback):
    """Plays the agent at even distances and keeps the best few.

    It plays in environments and on seeds of its own, and without drawing from a generator that training uses: training goes the
    same way with it and without it, and goes on meanwhile if the player has a companion.
    """

    __slots__ = ("_player",)  # not in vars(), which are the callback's part of a snapshot

    def __init__(self, player: CheckpointEvaluator, *, every: int) -> None:
        """Let the player play once in ``every`` steps."""
        super().__init__()
        self.kept: list[Checkpoint] = []
        self._playing: Checkpoint | None = None
        self._player = player
        self._every = every
        self._due = every

    def _on_training_start(self) -> None:
        self._due += self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self._playing is not None and not self._player.is_playing():
            self._keep_best(self._finished(self._playing))
        if self.model.num_timesteps >= self._due:
            self._due = self.model.num_timesteps + self._every
            self._begin()

    def _on_training_end(self) -> None:
        last = self._finished(self._begin())
        self.kept.append(last)

    def _on_step(self) -> bool:
        return True

    def _begin(self) -> Checkpoint:
        """Let the agent of this moment play, after the one before has."""
        if self._playing is not None:
            self._keep_best(self._finished(self._playing))
        self.logger.dump(
            self.model.num_timesteps
        )  # also what SB3 recorded since it last did, and may not any more
        self._playing = Checkpoint.of(self.model)
        self._player.begin(self._playing, CHECKPOINT_EPISODES)
        return self._playing

    def _finished(self, candidate: Checkpoint) -> Checkpoint:
        """A candidate that has played, with its score."""
        summary = rollout.summarize_returns(self._player.finish(candidate, CHECKPOINT_EPISODES))
        metrics: dict[str, Any] = {
            "eval/mean_reward": summary.mean_return,
            "eval/mean_ep_length": summary.mean_length,
        }
        for output in (
            self.logger.output_formats
        ):  # not by record and dump: the logger is at a later step by now
            output.write(metrics, dict.fromkeys(metrics, ()), candidate.step)
        candidate.training_score = summary.mean_return
        self._playing = None
        return candidate

    def _keep_best(self, candidate: Checkpoint) -> None:
        self.kept = sorted([*self.kept, candidate], key=attrgetter("rank"))[-ROUNDS[0][0] + 1 :]


def choose(
    model: BaseAlgorithm,
    candidates: Sequence[Checkpoint],
    player: CheckpointEvaluator,
    *,
    on_episode: Callable[[], object] = lambda: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Checkpoint:
    """Play the candidates on fresh seeds, round by round, and put the winner's weights into the model.

    Args:
        model: Of the player; holds the winner's parameters in the end.
        candidates: At least one; their ``returns`` are filled in.
        player: Plays the episodes behind the ones that training played.
        on_episode: Called for every episode that is over, for a progress bar.
        meanwhile: Called now and then while there is nothing to do but wait.
    """
    start = CHECKPOINT_EPISODES
    for entrants, episodes in ROUNDS:
        candidates = sorted(candidates, key=attrgetter("rank"))[-entrants:]
        played = player.lend(
            EvaluationTask(candidates, start, episodes), on_episode=on_episode, meanwhile=meanwhile
        )
        for candidate, fresh in zip(candidates, played, strict=True):
            candidate.returns += fresh.returns.tolist()
        start += episodes
    best = max(candidates, key=attrgetter("rank"))
    best.put_into(model)
    return best


def count_episodes(candidates: int) -> int:
    """How many episodes ``choose`` plays among so many candidates."""
    return sum(min(candidates, entrants) * episodes for entrants, episodes in ROUNDS)
