"""Compare a gate with earlier episodes of the champion, to find rare high returns that it missed.

If a champion returns 10,000 in one of 500 episodes, 45 % of all gates with 400 pairs see no such
episode, and may promote a challenger that is worse. The champion's
earlier episodes may include such a return.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import mlflow

from mlflow_sb3.promotion.record import MissedReturn
from mlflow_sb3.registry.model_version import Version

_PREFIXES = ("evaluation/", "promotion/challenger_")
"""Prefixes of the metrics of a logged model that summarize episodes of its agent."""


@dataclass(frozen=True)
class RecordedReturns:
    """Number and largest return of an agent's earlier episodes, by the metrics of its model."""

    episodes: int
    max_return: float


def find_recorded_returns(version: Version) -> RecordedReturns | None:
    """Summarize the evaluations of an agent and the gates that it played as the challenger.

    None if there are none.
    """
    model = mlflow.get_logged_model(version.model_id)
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for metric in model.metrics or []:
        for prefix in _PREFIXES:
            if metric.key.startswith(prefix):
                name = metric.key.removeprefix(prefix)
                values[(str(metric.run_id), prefix)][name] = metric.value
    complete = [item for item in values.values() if {"episodes", "max_return"} <= item.keys()]
    if not complete:
        return None
    return RecordedReturns(
        episodes=sum(round(item["episodes"]) for item in complete),
        max_return=max(item["max_return"] for item in complete),
    )


def find_missed_return(
    recorded: RecordedReturns,
    *,
    champion_mean: float,
    champion_max: float,
    lower_bound: float,
    min_improvement: float,
) -> MissedReturn | None:
    """Return a recorded return of the champion that speaks against a promotion.

    The return must exceed all returns of the champion in the gate. Suppose that the champion has it
    once in ``recorded.episodes`` episodes, which raises its mean return by a gain. The lower bound
    of the mean difference minus this gain must be at most ``min_improvement``. A promotion can only
    be prevented, so the probability of a wrong promotion does not rise.

    Args:
        recorded: Earlier episodes of the champion.
        champion_mean: Mean return of the champion in the gate.
        champion_max: Largest return of the champion in the gate.
        lower_bound: Lower bound of the mean difference.
        min_improvement: As in ``Gate``.
    """
    if recorded.max_return <= champion_max:
        return None
    gain = (recorded.max_return - champion_mean) / recorded.episodes
    if lower_bound - gain > min_improvement:
        return None
    return MissedReturn(recorded.max_return, recorded.episodes, gain)
