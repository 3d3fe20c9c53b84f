"""Simulate nightly challengers of one champion, with and without ``alpha_per_reign``."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.promotion_scenarios import MEAN, RETURN_STD, Returns
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import confidence, error_budget, gate
from mlflow_sb3.promotion.gate import Gate

ALPHA_PER_REIGN = 0.05
SERIES_NIGHTS = 30
POWER_NIGHTS = (1, 10, 30)
"""Nights whose power is measured."""
LEAD = 0.3 * RETURN_STD
"""Lead in mean return of the better challenger: 0.3 standard deviations of an episode."""


def is_any_promoted(number: int, *, has_budget: bool) -> bool:
    """Return whether a series of challengers that equal the champion has a promotion."""
    return any(
        is_promoted(number, night, 0.0, has_budget=has_budget)
        for night in range(1, SERIES_NIGHTS + 1)
    )


def is_promoted(number: int, night: int, lead: float, *, has_budget: bool) -> bool:
    """Return whether the gate of one night promotes the challenger.

    Args:
        number: Number of the series.
        night: Night of the reign, from 1.
        lead: True mean return of the challenger minus that of the champion.
        has_budget: Whether the gate uses ``alpha_per_reign`` instead of ``alpha``.
    """
    alpha = error_budget.compute_share(ALPHA_PER_REIGN, night) if has_budget else Gate().alpha
    settings = Gate(alpha=alpha)
    rng = np.random.default_rng([number, night, round(lead)])
    challenger = rng.normal(MEAN + lead, RETURN_STD, settings.episodes)
    champion = rng.normal(MEAN, RETURN_STD, settings.episodes)
    # The gate promotes only if both lower bounds exceed 0. The t bound is cheap, so try it first.
    differences = gate.compute_return_differences(challenger, champion)
    if confidence.bound_mean_by_t(differences, alpha)[0] <= settings.min_improvement:
        return False
    play = partial(_play, challenger, champion)
    return gate.compare_agents(settings, play, seed=night).verdict == "promote"


def _play(
    challenger: Returns, champion: Returns, start: int, stop: int
) -> tuple[Episodes, Episodes]:
    seeds, lengths = np.arange(start, stop), np.ones(stop - start, np.int64)
    return (
        Episodes(seeds, challenger[start:stop], lengths),
        Episodes(seeds, champion[start:stop], lengths),
    )
