"""Define the facts about a training that a model card shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CardReturns:
    """Returns of the kept checkpoint, from episodes that were played after learning."""

    episodes: int
    mean: float
    std: float
    """Standard deviation, with the divisor n."""
    worst: float
    """Mean of the lowest 5 % of the returns."""
    interval: tuple[float, float] | None = None
    """Interval of the mean by Student's t, with 95 % confidence. None for a single episode."""
    seeds: str | None = None
    """Python expression of the seeds. None if the episodes do not start from seeds."""
    competitors: int = 1
    """Checkpoints that played such episodes, and from which the best one was kept."""


@dataclass(frozen=True)
class CardTraining:
    """Where and how the weights were trained."""

    timesteps: int | None = None
    """Environment steps."""
    seed: int | None = None
    preset: str | None = None
    """Origin of the tuned hyperparameters."""
    kept_step: int | None = None
    """Environment steps of the kept checkpoint."""
    seconds: float | None = None
    """Duration of the training run."""
    resumed_at: int | None = None
    """Step from which the training run resumed an earlier one, which ``seconds`` lacks."""
    processor: str | None = None
    torch_threads: int | None = None
    python: str | None = None
    commit: str | None = None
    has_changes: bool = False
    """Whether tracked files had uncommitted changes."""
    run_id: str | None = None
    base_model: str | None = None
    """URI of the model that was fine-tuned."""
    inexact: str | None = None
    """Why the result may differ from an uninterrupted training."""


@dataclass(frozen=True)
class CardFacts:
    """What is known about the agent of a model beyond its own files."""

    training: CardTraining = field(default_factory=CardTraining)
    returns: CardReturns | None = None
    hyperparams: Mapping[str, str] = field(default_factory=dict)
    learning_curve: bytes | None = field(default=None, repr=False)
    """PNG file. None without a plot."""
