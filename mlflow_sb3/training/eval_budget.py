"""Limit the time that a training waits for the evaluation and the selection of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SHARE = 0.1
"""Default of ``EvaluationBudget.share``."""
FLOOR_SECONDS = 10.0
"""Seconds that every training may wait, however short it is."""


@dataclass
class EvaluationBudget:
    """Seconds that a training has spent and may spend on waiting for evaluations.

    Only waiting counts: an evaluation in a worker process costs nothing while the training
    continues. Half of the budget is for the checkpoints during the training. The selection gets
    the rest, and at least a quarter. A snapshot has this object, so a resumed training continues to
    count.
    """

    share: float = DEFAULT_SHARE
    """Budget as a fraction of the seconds of learning. The budget has ``FLOOR_SECONDS`` or more."""
    learn_seconds: float = 0.0
    """Seconds of learning so far, without waiting."""
    wait_seconds: float = 0.0
    """Seconds of waiting so far."""
    longest_wait: float = 0.0
    """Seconds of the longest single wait."""

    @property
    def seconds(self) -> float:
        """All seconds that the training may wait, given the time of learning so far."""
        return max(FLOOR_SECONDS, self.share * self.learn_seconds)

    def add_wait(self, seconds: float) -> None:
        """Count a wait for one evaluation."""
        self.wait_seconds += seconds
        self.longest_wait = max(self.longest_wait, seconds)

    def allows_wait(self) -> bool:
        """Return whether the training may wait for another evaluation while it learns.

        At its end, it waits twice more: for the pending checkpoint, and for the last one.
        """
        return self.wait_seconds + 3 * self.longest_wait <= self.seconds / 2

    def count_episodes(self, seconds_per_episode: float) -> int:
        """Return the number of episodes, at least 1, that fit into the rest of the budget."""
        rest = max(self.seconds / 4, self.seconds - self.wait_seconds)
        return max(1, int(rest / max(seconds_per_episode, 1e-9)))
