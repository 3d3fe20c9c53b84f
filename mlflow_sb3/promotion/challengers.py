"""Versions that compete for the champion's alias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry.model_version import Version, from_mlflow
from mlflow_sb3.registry.versions import ROLLED_BACK_TAG, find_champion, versions_of_runs

if TYPE_CHECKING:
    pass

SCORE_METRIC = "eval/kept_mean_reward"
"""Metric of a training run: the mean return of the kept agent over the fresh episodes of the choice."""

_PAGE, _PAGES = 100, 10
"""Trainings that one call is about, whose ids have room in one address, and how often the next ones are asked for."""


def best_challengers(name: str, alias: str, experiment_id: str, top: int) -> list[Version]:
    """The versions whose trainings in an experiment scored best, the best one first, without the champion and what was rolled back.

    Only the thousand best trainings of the experiment are looked at.

    Raises:
        MlflowException: There is none.
    """
    reigning = find_champion(name, alias)
    chosen: list[Version] = []
    for run_ids in _best_runs(experiment_id):
        versions = [
            found for found in versions_of_runs(name, run_ids) if ROLLED_BACK_TAG not in found.tags
        ]
        last = {
            found.run_id: from_mlflow(found)
            for found in sorted(versions, key=lambda found: int(found.version))
        }
        scored = [last[run_id] for run_id in run_ids if run_id in last]
        chosen += [found for found in scored if reigning is None or found.number != reigning.number]
        if len(chosen) >= top:
            break
    if not chosen:
        raise MlflowException.invalid_parameter_value(
            f"no version of {name} but the champion comes from a training of this experiment; name the experiment, or train first."
        )
    return chosen[:top]


def _best_runs(experiment_id: str) -> Iterator[list[str]]:
    """The ids of an experiment's trainings by their scores, the best one first, a page at a time."""
    order, token = [f"metrics.`{SCORE_METRIC}` DESC"], None
    for _ in range(_PAGES):
        page = RegistryClient().search_runs(
            [experiment_id],
            f"metrics.`{SCORE_METRIC}` > -1e308",
            order_by=order,
            max_results=_PAGE,
            page_token=token,
        )
        yield [run.info.run_id for run in page]
        token = page.token
        if not token:
            return
