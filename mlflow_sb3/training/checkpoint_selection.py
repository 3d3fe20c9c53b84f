"""Select the checkpoint to keep after training.

The best mean return of ten episodes during training may be due to chance. The selection therefore
evaluates the best checkpoints on fresh seeds. Each round has fewer checkpoints and more episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator, EvaluationTask
from mlflow_sb3.training.eval_budget import DEFAULT_SHARE

N_CHECKPOINTS = 50
"""Checkpoints that are evaluated during one training, if the budget allows."""
EPISODES_PER_CHECKPOINT = 10
"""Episodes that evaluate a checkpoint during training."""
Rounds = tuple[tuple[int, int], ...]
RACE: Rounds = ((8, 20), (4, 50), (2, 200))
"""Rounds of the selection: number of checkpoints, and fresh episodes for each of them."""
RACE_EPISODES = sum(checkpoints * episodes for checkpoints, episodes in RACE)
"""Fresh episodes of all rounds together."""
MAX_CHECKPOINTS = RACE[0][0]
"""Checkpoints that enter the selection."""
_RESAMPLES = 2000

Selection = Literal["race", "best", "none"]
"""How a checkpoint is selected.

``"race"``: the best checkpoints play fresh episodes, in rounds. ``"best"``: the checkpoint with the
highest mean return during training. ``"none"``: the last checkpoint; no other is evaluated.
"""


@dataclass(frozen=True)
class EvaluationSettings:
    """How the checkpoints of a training are evaluated and selected."""

    freq: int | None = None
    """Environment steps between two checkpoints.

    None for at most ``N_CHECKPOINTS`` checkpoints, as far as the budget allows.
    """
    episodes: int = EPISODES_PER_CHECKPOINT
    """Episodes that each checkpoint plays during training.

    Without a race, the selected checkpoint plays as many fresh episodes after training.
    """
    selection: Selection = "race"
    budget: float = DEFAULT_SHARE
    """See ``EvaluationBudget.share``.

    If ``freq`` and ``steps`` are None, the budget decides when checkpoints are evaluated. If
    ``race_episodes`` is None, it decides the length of the race.
    """
    steps: Sequence[int] | None = None
    """Environment steps of all checkpoints but the last one, which is taken at the end.

    They replace ``freq``, and the budget as far as it decides when checkpoints are evaluated.
    """
    race_episodes: int | None = None
    """Fresh episodes of the race. None for ``RACE_EPISODES``, as far as the budget allows."""

    @property
    def has_budget(self) -> bool:
        """Whether the budget decides when checkpoints are evaluated."""
        return self.freq is None and self.steps is None and self.selection != "none"

    def get_interval(self, timesteps: int) -> int | None:
        """Return the environment steps between two checkpoints.

        None if only the last checkpoint is evaluated.

        Args:
            timesteps: Environment steps of the training.
        """
        if self.selection == "none":
            return None
        return self.freq or -(-timesteps // N_CHECKPOINTS)

    @property
    def rounds(self) -> Rounds:
        """Rounds of the selection; see ``RACE``."""
        if self.selection != "race":
            return ((1, self.episodes),)
        scale = 1.0 if self.race_episodes is None else self.race_episodes / RACE_EPISODES
        rounds = [(checkpoints, round(episodes * scale)) for checkpoints, episodes in RACE]
        return tuple(entry for entry in rounds if entry[1]) or ((1, 1),)


def keep_best(checkpoints: Sequence[Checkpoint], count: int) -> list[Checkpoint]:
    """Return the best ``count`` checkpoints, the best one last."""
    return sorted(checkpoints, key=attrgetter("rank"))[-count:]


def select_checkpoint(
    model: BaseAlgorithm,
    checkpoints: Sequence[Checkpoint],
    evaluator: CheckpointEvaluator,
    settings: EvaluationSettings,
    *,
    on_episode: Callable[[], object] = lambda: None,
    while_waiting: Callable[[], object] = lambda: None,
) -> Checkpoint:
    """Evaluate checkpoints on fresh seeds and load the best one into the model.

    Args:
        model: The model of ``evaluator``. It ends with the weights of the selected checkpoint.
        checkpoints: At least one checkpoint. The returns of a round are appended to ``returns`` of
            the checkpoints that played it.
        evaluator: Runs the episodes. Their seeds differ from those used during training.
        settings: Rounds of the selection.
        on_episode: Called after each episode, for a progress bar.
        while_waiting: Called twice a second while a worker process finishes its checkpoints.

    Returns:
        The selected checkpoint.
    """
    remaining = list(checkpoints)
    first_episode = settings.episodes
    for n_checkpoints, n_episodes in settings.rounds:
        remaining = keep_best(remaining, n_checkpoints)
        results = evaluator.evaluate_in_model(
            EvaluationTask(remaining, first_episode, n_episodes),
            on_episode=on_episode,
            while_waiting=while_waiting,
        )
        for checkpoint, episodes in zip(remaining, results, strict=True):
            checkpoint.returns += episodes.returns.tolist()
        first_episode += n_episodes
    best = max(remaining, key=attrgetter("rank"))
    best.load_into(model)
    return best


def count_episodes(n_checkpoints: int, rounds: Rounds) -> int:
    """Return the number of episodes that a selection among ``n_checkpoints`` runs."""
    return sum(min(n_checkpoints, entrants) * episodes for entrants, episodes in rounds)


def estimate_confidence(best: Checkpoint, checkpoints: Sequence[Checkpoint]) -> float | None:
    """Return the confidence that no other checkpoint of the last round has a higher mean return.

    The checkpoints of the last round played the same fresh episodes. Where a function makes the
    environments, they played equally many in each environment. The confidence is the share of
    bootstrap resamples of these episodes in which no other checkpoint has a higher mean.

    Args:
        best: The selected checkpoint.
        checkpoints: All checkpoints that entered the selection.

    Returns:
        A number from 0 to 1. None if the last round had one checkpoint or one episode.
    """
    others = [
        checkpoint.returns
        for checkpoint in checkpoints
        if checkpoint is not best and len(checkpoint.returns) == len(best.returns)
    ]
    n_episodes = len(best.returns)
    if not others or n_episodes == 1:
        return None
    differences = np.subtract(best.returns, others)
    random = np.random.default_rng(0)
    resamples = (random.integers(n_episodes, size=n_episodes) for _ in range(_RESAMPLES))
    n_best = sum(bool((differences[:, rows].mean(axis=1) >= 0).all()) for rows in resamples)
    return n_best / _RESAMPLES
