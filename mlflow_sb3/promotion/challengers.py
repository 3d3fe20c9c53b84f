"""Find the challengers of a promotion: one version, or the best trainings of an experiment."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow.exceptions import MlflowException

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.registry.versions import find_champion, find_versions_of_runs, is_rolled_back

SCORE_METRIC = "eval/kept_mean_reward"
"""Metric of a training run: mean return of the kept checkpoint over fresh episodes."""

_PAGE_SIZE = 100
"""Number of runs per page. One request searches the versions of a page by the ids of its runs."""
_MAX_PAGES = 10


def find_best_challengers(name: str, alias: str, experiment_id: str, top: int) -> list[Version]:
    """Find the versions of a registered model with the best training scores.

    Each run offers its latest version that was not rolled back. The champion is left out. Only the
    best 1000 runs of the experiment are searched.

    Args:
        name: Name of the registered model.
        alias: Alias of the champion.
        experiment_id: Experiment of the training runs.
        top: Largest number of versions to return.

    Returns:
        The versions, best score first; at least one.

    Raises:
        MlflowException: No version was found.
    """
    champion = find_champion(name, alias)
    challengers: list[Version] = []
    for run_ids in _search_best_runs(experiment_id):
        challengers += [
            version
            for version in _find_latest_versions(name, run_ids)
            if champion is None or version.number != champion.number
        ]
        if len(challengers) >= top:
            break
    if not challengers:
        raise MlflowException.invalid_parameter_value(
            f"{name} has no challenger from experiment {experiment_id}: no training run there has "
            "a version, except the run of the champion and versions that were rolled back. "
            "Set experiment to the name of another experiment, or train first."
        )
    return challengers[:top]


def _find_latest_versions(name: str, run_ids: list[str]) -> list[Version]:
    """Return, in the order of the runs, the latest version of each that was not rolled back."""
    entities = [
        entity for entity in find_versions_of_runs(name, run_ids) if not is_rolled_back(entity)
    ]
    entities.sort(key=lambda entity: int(entity.version))
    latest = {entity.run_id: Version.from_mlflow(entity) for entity in entities}
    return [latest[run_id] for run_id in run_ids if run_id in latest]


def _search_best_runs(experiment_id: str) -> Iterator[list[str]]:
    """Yield the ids of the training runs of an experiment in pages, best score first."""
    token = None
    for _ in range(_MAX_PAGES):
        page = RegistryClient().search_runs(
            [experiment_id],
            f"metrics.`{SCORE_METRIC}` > -1e308",
            order_by=[f"metrics.`{SCORE_METRIC}` DESC"],
            max_results=_PAGE_SIZE,
            page_token=token,
        )
        yield [run.info.run_id for run in page]
        token = page.token
        if not token:
            return
