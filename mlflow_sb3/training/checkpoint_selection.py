"""Select the checkpoint to keep after training.

The best mean return of ten episodes during training may be due to chance. The selection therefore
evaluates the best checkpoints on fresh seeds. Each round has fewer checkpoints and more episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator, EvaluationTask

N_CHECKPOINTS = 50
"""Checkpoints that are evaluated during one training."""
EPISODES_PER_CHECKPOINT = 10
"""Episodes that evaluate a checkpoint during training."""
Rounds = tuple[tuple[int, int], ...]
RACE: Rounds = ((8, 20), (4, 50), (2, 200))
"""Rounds of the selection: number of checkpoints, and fresh episodes for each of them."""
MAX_CHECKPOINTS = RACE[0][0]
"""Checkpoints that enter the selection."""

Selection = Literal["race", "best", "none"]
"""How a checkpoint is selected.

``"race"``: the best checkpoints play fresh episodes, in rounds. ``"best"``: the checkpoint with the
highest mean return during training. ``"none"``: the last checkpoint; no other is evaluated.
"""


@dataclass(frozen=True)
class EvaluationSettings:
    """How the checkpoints of a training are evaluated and selected."""

    freq: int | None = None
    """Environment steps between two checkpoints. None for ``N_CHECKPOINTS`` checkpoints."""
    episodes: int = EPISODES_PER_CHECKPOINT
    """Episodes of each checkpoint during training, and without a race again after training."""
    selection: Selection = "race"

    def get_interval(self, timesteps: int) -> int | None:
        """Return the environment steps between two checkpoints. None for the last checkpoint only.

        Args:
            timesteps: Environment steps of the training.
        """
        if self.selection == "none":
            return None
        return self.freq or max(1, timesteps // N_CHECKPOINTS)

    @property
    def rounds(self) -> Rounds:
        """Rounds of the selection; see ``RACE``."""
        return RACE if self.selection == "race" else ((1, self.episodes),)


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
        checkpoints: At least one checkpoint. Their ``returns`` are filled in.
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
