"""Challenger against champion on the same seeds: the gate's settings, its looks at the pairs, and the verdict."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import confidence
from mlflow_sb3.promotion.confidence import ConfidenceBounds

LOOKS = (25, 50, 100, 200)
"""Pairs after which the gate may reject, but not promote: to promote early would promote the lucky."""
FEWEST = 2
"""Pairs of which a mean and its error can be said."""
SMALLEST_ALPHA, LARGEST_ALPHA = 0.001, 0.5
LARGEST_RETURN = 1e100
ROUNDING = 1e-9
"""Part of a return by which the order of the rewards may change their sum."""
WORST = 0.05
"""Share of the episodes that count as the worst."""

Verdict = Literal["promote", "reject", "tie", "inconclusive"]
Play = Callable[[int, int], tuple[Episodes, Episodes]]
"""Plays the pairs ``start`` to ``stop``: the episodes of the challenger, and those of the other one on the same seeds."""


@dataclass(frozen=True)
class Gate:
    """What a challenger has to show, in returns and episodes.

    Raises:
        ValueError: A setting is out of its range.
    """

    episodes: int = 400
    alpha: float = 0.05
    min_improvement: float = 0.0
    min_return: float | None = None

    def __post_init__(self) -> None:
        if self.episodes < FEWEST:
            raise ValueError(
                f"episodes={self.episodes}: it takes two pairs at least to say how sure their mean is; give 400."
            )
        if not SMALLEST_ALPHA <= self.alpha < LARGEST_ALPHA:
            raise ValueError(
                f"alpha={self.alpha}: give a chance of error from {SMALLEST_ALPHA} to {LARGEST_ALPHA}, such as 0.05."
            )
        if not 0 <= self.min_improvement < math.inf:
            raise ValueError(
                f"min_improvement={self.min_improvement}: give a return of 0 or more that the challenger has to be ahead."
            )
        if self.min_return is not None and not math.isfinite(self.min_return):
            raise ValueError(f"min_return={self.min_return}: give a finite return.")

    @property
    def looks(self) -> list[int]:
        """Numbers of pairs after which the gate looks at them; after the last one it decides."""
        return [*(pairs for pairs in LOOKS if pairs < self.episodes), self.episodes]

    def seed(
        self, name: str, challenger: str, champion: str | None, environment: str | None
    ) -> int:
        """The seed of the stream ``gate``: another for every pair of agents and every setting, the same whenever it is asked for again.

        A setting given as 0 is that given as 0.0.

        Args:
            name: Of the registered model.
            challenger: Model id.
            champion: Model id, if there is a champion.
            environment: The judge, if it is named.
        """
        settings = {
            key: None if value is None else float(value) for key, value in asdict(self).items()
        }
        text = json.dumps([name, challenger, champion, environment, settings])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Look:
    """What the first pairs say about the mean of the differences, challenger less champion."""

    pairs: int
    mean_difference: float
    bounds: ConfidenceBounds


@dataclass(frozen=True)
class Comparison:
    """The verdict and all that it rests on."""

    gate: Gate
    challenger: Episodes
    champion: Episodes
    looks: list[Look]
    verdict: Verdict
    challenger_bounds: ConfidenceBounds | None
    """Of the challenger's mean return, where a least return was asked for: the t bounds decide, for the bootstrap knows nothing of
    returns that are nearly all the same."""

    @property
    def differences(self) -> NDArray[np.float64]:
        """Challenger less champion, shape ``(pairs,)``; see ``differences``."""
        return differences(self.challenger.returns, self.champion.returns)

    @property
    def probability_of_improvement(self) -> float:
        """Share of the pairs in which the challenger returned more, with half of the ties (Agarwal et al. 2021, section 4.3)."""
        return float(np.mean(self.differences > 0) + np.mean(self.differences == 0) / 2)

    @property
    def tells_nothing_apart(self) -> bool:
        """Whether every episode of both of them returned the same."""
        return len({*self.challenger.returns.tolist(), *self.champion.returns.tolist()}) == 1


def compare_agents(gate: Gate, play: Play, *, seed: int) -> Comparison:
    """Let both play until the challenger is surely not better, or to the end.

    Args:
        gate: What the challenger has to show.
        play: Plays some of the pairs.
        seed: Of the bootstrap.

    Raises:
        ValueError: A return is not finite, or the two played different seeds.
    """
    looks: list[Look] = []
    challenger = champion = Episodes.none()
    for pairs in gate.looks:
        more, others = play(len(challenger.seeds), pairs)
        challenger, champion = challenger + more, champion + others
        _check(challenger, champion)
        between = differences(challenger.returns, champion.returns)
        looks.append(
            Look(pairs, float(between.mean()), confidence.of_mean(between, gate.alpha, seed=seed))
        )
        if between.any() and looks[-1].bounds.upper <= gate.min_improvement:
            return Comparison(gate, challenger, champion, looks, "reject", None)
    own = (
        None
        if gate.min_return is None
        else confidence.of_mean(challenger.returns, gate.alpha, seed=seed)
    )
    return Comparison(
        gate, challenger, champion, looks, _decide(gate, between, looks[-1], own), own
    )


def worst_returns_mean(returns: NDArray[np.float64]) -> float:
    """Mean of the worst 5 % of the returns, of one of them at least."""
    count = max(1, math.ceil(WORST * len(returns)))
    return float(np.sort(returns)[:count].mean())


def differences(
    challenger: NDArray[np.float64], champion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Challenger less champion; exactly 0 where they differ by no more than the rounding of sums of rewards."""
    return np.where(
        np.isclose(challenger, champion, rtol=ROUNDING, atol=0.0), 0.0, challenger - champion
    )


def _decide(
    gate: Gate, between: NDArray[np.float64], last: Look, own: ConfidenceBounds | None
) -> Verdict:
    if not between.any():
        return "tie"
    if not last.bounds.lower > gate.min_improvement:
        return "inconclusive"
    if own is None or gate.min_return is None or own.t_lower >= gate.min_return:
        return "promote"
    return "reject" if own.t_upper < gate.min_return else "inconclusive"


def _check(challenger: Episodes, champion: Episodes) -> None:
    if not np.array_equal(challenger.seeds, champion.seeds):
        raise ValueError("challenger and champion played different seeds; play both on the same.")
    for name, episodes in (("challenger", challenger), ("champion", champion)):
        if (broken := ~(np.abs(episodes.returns) < LARGEST_RETURN)).any():
            raise ValueError(
                f"the {name}'s episode with the seed {episodes.seeds[broken][0]} returned {episodes.returns[broken][0]}, "
                "which cannot be compared; check the environment's rewards."
            )
