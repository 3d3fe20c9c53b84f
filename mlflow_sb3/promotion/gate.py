"""Compare a challenger with a champion on the same seeds, and decide about the promotion."""

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
"""Numbers of pairs after which the gate may reject.

It never promotes before the last pair: repeated tests would promote lucky challengers.
"""
MIN_PAIRS = 2
"""Smallest number of pairs with a standard error."""
MIN_ALPHA, MAX_ALPHA = 1e-5, 0.5
MAX_ABSOLUTE_RETURN = 1e100
RELATIVE_TOLERANCE = 1e-9
"""Relative difference below which two returns count as equal.

The order in which rewards are summed can change a return by this much.
"""
WORST_FRACTION = 0.05
"""Fraction of the episodes in ``compute_worst_returns_mean``."""

Verdict = Literal["promote", "reject", "tie", "inconclusive"]
PlayPairs = Callable[[int, int], tuple[Episodes, Episodes]]
"""Play pairs ``start`` to ``stop``; return the challenger's and the champion's episodes."""


@dataclass(frozen=True)
class Gate:
    """Settings of the statistical test before a promotion.

    Attributes:
        episodes: Largest number of pairs of episodes to play.
        alpha: Nominal upper bound for the probability of promoting a challenger that is not better
            than the champion.
        min_improvement: Mean return by which the challenger must exceed the champion.
        min_return: Mean return that the challenger must reach; None for no limit.

    Raises:
        ValueError: A setting is out of its range.
    """

    episodes: int = 400
    alpha: float = 0.05
    min_improvement: float = 0.0
    min_return: float | None = None

    def __post_init__(self) -> None:
        if self.episodes < MIN_PAIRS:
            raise ValueError(
                f"The gate needs at least {MIN_PAIRS} pairs, got episodes={self.episodes}. "
                "Use the default 400, or another number of pairs."
            )
        if not MIN_ALPHA <= self.alpha < MAX_ALPHA:
            raise ValueError(
                f"alpha must be at least {MIN_ALPHA} and below {MAX_ALPHA}, "
                f"got alpha={self.alpha}. Use for example 0.05."
            )
        if not 0 <= self.min_improvement < math.inf:
            raise ValueError(
                "min_improvement must be a finite return of 0 or more, "
                f"got min_improvement={self.min_improvement}. Use 0 to accept any improvement."
            )
        if self.min_return is not None and not math.isfinite(self.min_return):
            raise ValueError(
                f"min_return must be finite, got min_return={self.min_return}. "
                "Leave it out if the challenger needs no minimum return."
            )

    @property
    def looks(self) -> list[int]:
        """Return the numbers of pairs after which the gate tests; the last one is ``episodes``."""
        return [*(pairs for pairs in LOOKS if pairs < self.episodes), self.episodes]

    def derive_seed(
        self, name: str, challenger: str, champion: str | None, environment: str | None
    ) -> int:
        """Derive the seed of a gate from the two models and all settings.

        The same arguments give the same seed, so a repeated promotion plays the same episodes.
        Any other model or setting gives another seed. 0 and 0.0 are the same setting.

        Args:
            name: Name of the registered model.
            challenger: Model id of the challenger.
            champion: Model id of the champion; None if there is no champion.
            environment: ``EnvSpec`` JSON of the environment that both play in.

        Returns:
            An integer from 0 to ``2**64 - 1``.
        """
        settings = {
            key: None if value is None else float(value) for key, value in asdict(self).items()
        }
        text = json.dumps([name, challenger, champion, environment, settings])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Look:
    """Mean difference of the first pairs, challenger minus champion, with its bounds."""

    pairs: int
    mean_difference: float
    bounds: ConfidenceBounds


@dataclass(frozen=True)
class Comparison:
    """Verdict of a gate with the episodes and bounds behind it.

    Attributes:
        gate: Settings of the test.
        challenger: Episodes of the challenger.
        champion: Episodes of the champion.
        looks: Interim results, the last one after all pairs that were played.
        verdict: Result of the test.
        challenger_bounds: Bounds of the challenger's mean return. None if the gate has no
            ``min_return``, or if it ended before ``min_return`` mattered.
        is_paired: Whether both agents played the same seeds, so that a pair shares its seed.
    """

    gate: Gate
    challenger: Episodes
    champion: Episodes
    looks: list[Look]
    verdict: Verdict
    challenger_bounds: ConfidenceBounds | None
    is_paired: bool = True

    @property
    def differences(self) -> NDArray[np.float64]:
        """Return the differences of the pairs, shape ``(pairs,)``.

        Without pairs, each episode of the challenger is compared with each of the champion, shape
        ``(pairs, pairs)``. See ``compute_return_differences``.
        """
        challenger = self.challenger.returns if self.is_paired else self.challenger.returns[:, None]
        return compute_return_differences(challenger, self.champion.returns)

    @property
    def samples(self) -> list[NDArray[np.float64]]:
        """Return the independent samples of the test.

        They are the differences of the pairs, or the returns of both agents.
        """
        if self.is_paired:
            return [self.differences]
        return [self.challenger.returns, self.champion.returns]

    @property
    def probability_of_improvement(self) -> float:
        """Return the fraction of ``differences`` above 0. A tie counts one half.

        See Agarwal et al. 2021, section 4.3.
        """
        return float(np.mean(self.differences > 0) + np.mean(self.differences == 0) / 2)

    @property
    def is_stopped_early(self) -> bool:
        """Return whether the gate rejected the challenger before all pairs were played."""
        return self.looks[-1].pairs < self.gate.episodes

    @property
    def has_equal_returns(self) -> bool:
        """Return whether all episodes of both agents have the same return."""
        return _are_equal(self.challenger.returns, self.champion.returns)


def compare_agents(gate: Gate, play: PlayPairs, *, seed: int, is_paired: bool = True) -> Comparison:
    """Play pairs of episodes until the gate rejects the challenger or all pairs are played.

    Args:
        gate: Settings of the test.
        play: Called with the range of pairs to play next.
        seed: Seed of the bootstrap.
        is_paired: Whether both agents play the same seeds. If not, the episodes of a pair have
            nothing in common, and the bounds are those of two independent samples.

    Raises:
        ValueError: A return is not finite, the agents played different seeds, or a simulator
            played the same episodes again with another seed.
    """
    looks: list[Look] = []
    challenger = champion = Episodes.empty()
    for pairs in gate.looks:
        challenger_episodes, champion_episodes = play(len(challenger.seeds), pairs)
        if not is_paired:
            _check_new_episodes(challenger, challenger_episodes)
        challenger, champion = challenger + challenger_episodes, champion + champion_episodes
        _check_episodes(challenger, champion, is_paired=is_paired)
        if is_paired:
            differences = compute_return_differences(challenger.returns, champion.returns)
            mean, is_tie = differences.mean(), not differences.any()
            bounds = confidence.bound_mean(differences, gate.alpha, seed=seed)
        else:
            mean = challenger.returns.mean() - champion.returns.mean()
            is_tie = _are_equal(challenger.returns, champion.returns)
            bounds = confidence.bound_mean_difference(
                challenger.returns, champion.returns, gate.alpha, seed=seed
            )
        looks.append(Look(pairs, float(mean), bounds))
        if not is_tie and bounds.upper <= gate.min_improvement:
            return Comparison(gate, challenger, champion, looks, "reject", None, is_paired)
    challenger_bounds = (
        None
        if gate.min_return is None
        else confidence.bound_mean(challenger.returns, gate.alpha, seed=seed)
    )
    verdict = "tie" if is_tie else _decide_verdict(gate, looks[-1], challenger_bounds)
    return Comparison(gate, challenger, champion, looks, verdict, challenger_bounds, is_paired)


def compute_worst_returns_mean(returns: NDArray[np.float64]) -> float:
    """Return the mean of the lowest 5 % of the returns, at least one of them."""
    count = max(1, math.ceil(WORST_FRACTION * len(returns)))
    return float(np.sort(returns)[:count].mean())


def compute_return_differences(
    challenger: NDArray[np.float64], champion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return challenger minus champion; exactly 0 within ``RELATIVE_TOLERANCE``.

    Args:
        challenger: Returns of the challenger.
        champion: Returns of the champion. The shapes are broadcast together.
    """
    is_equal = np.isclose(challenger, champion, rtol=RELATIVE_TOLERANCE, atol=0.0)
    return np.where(is_equal, 0.0, challenger - champion)


def _are_equal(challenger: NDArray[np.float64], champion: NDArray[np.float64]) -> bool:
    """Return whether all returns of both agents are equal within ``RELATIVE_TOLERANCE``."""
    returns = np.concatenate([challenger, champion])
    return bool(np.isclose(returns, returns[0], rtol=RELATIVE_TOLERANCE, atol=0.0).all())


def _check_new_episodes(before: Episodes, new: Episodes) -> None:
    """Check that a simulator with a new seed did not play the last episodes once more.

    Only episodes with mostly distinct returns are checked. Others can be equal by chance.
    """
    count = len(new.returns)
    is_varied = len(np.unique(new.returns)) > count / 2 > 1
    if is_varied and np.array_equal(before.returns[-count:], new.returns):
        raise ValueError(
            f"{count} episodes were played again although the seed of the simulator changed. "
            "Let the function that makes the VecEnv use its argument seed."
        )


def _decide_verdict(gate: Gate, last: Look, challenger_bounds: ConfidenceBounds | None) -> Verdict:
    if not last.bounds.lower > gate.min_improvement:
        return "inconclusive"
    # min_return is compared with the t bounds: the bootstrap bounds are infinite if nearly all
    # returns are equal, as at the ceiling of an environment.
    if (
        gate.min_return is None
        or challenger_bounds is None
        or challenger_bounds.t_lower >= gate.min_return
    ):
        return "promote"
    return "reject" if challenger_bounds.t_upper < gate.min_return else "inconclusive"


def _check_episodes(challenger: Episodes, champion: Episodes, *, is_paired: bool) -> None:
    if is_paired and not np.array_equal(challenger.seeds, champion.seeds):
        raise ValueError(
            "Challenger and champion played different seeds. Play both agents on the same seeds."
        )
    for name, episodes in (("challenger", challenger), ("champion", champion)):
        is_invalid = ~(np.abs(episodes.returns) < MAX_ABSOLUTE_RETURN)
        if is_invalid.any():
            raise ValueError(
                f"The {name}'s episode with seed {episodes.seeds[is_invalid][0]} returned "
                f"{episodes.returns[is_invalid][0]}, which cannot be compared. "
                "Check the rewards of the environment."
            )
