"""What an earlier call of ``main`` did before it was interrupted: the steps that finished, and the training that can be gone on with."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3 import heartbeat, interruption
from mlflow_sb3.provenance import COMMIT

ENTRY_POINT = "mlflow.project.entryPoint"
PARENT = "mlflow.parentRunId"
CONTINUES = "mlflow_sb3.continues"
"""Tag of a run of ``main``: the one that it goes on with, whose steps it has taken over."""
LOOKED_AT = 50
"""Latest calls of ``main`` on a commit among which the earlier one is looked for."""
GRACE = 30.0
"""Seconds to wait for steps of a dead ``main`` to end by themselves."""


@dataclass(frozen=True)
class Story:
    """An earlier call with the same parameters on the same commit, and its steps, the newest first."""

    run_id: str
    steps: list[Run]

    def finished(self, entry_point: str, parameters: dict[str, Any]) -> Run | None:
        """A step that finished, with these parameters; more than these do not count."""
        return next((step for step in self._of(entry_point, parameters) if step.info.status == "FINISHED"), None)

    def unfinished(self, entry_point: str, parameters: dict[str, Any]) -> Run | None:
        """The last step that did not finish, with these parameters."""
        return next((step for step in self._of(entry_point, parameters) if step.info.status != "FINISHED"), None)

    def _of(self, entry_point: str, parameters: dict[str, Any]) -> list[Run]:
        values = {key: _value(str(given)) for key, given in parameters.items()}
        return [step for step in self.steps if step.data.tags.get(ENTRY_POINT) == entry_point and _has(step, values)]


def begin(run_id: str, *, ignored: str) -> Story:
    """Find the last call with the parameters and the commit of a run of ``main``, and take its steps over if it did not finish.

    Args:
        run_id: Of ``main``, started by ``mlflow run``.
        ignored: A parameter that may differ.

    Returns:
        Without steps, where there is nothing to go on with.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    earlier = _last(run, ignored)
    if earlier is None or earlier.info.status == "FINISHED" or (earlier.info.status == "RUNNING" and heartbeat.is_alive(earlier)):
        return Story(run_id, [])
    mine = f"tags.`{PARENT}` = '{earlier.info.run_id}'"
    steps = [_over(step) for step in client.search_runs([run.info.experiment_id], mine, max_results=100)]
    for step in steps:
        client.set_tag(step.info.run_id, PARENT, run_id)
    client.set_tag(run_id, CONTINUES, earlier.info.run_id)
    return Story(earlier.info.run_id, steps)


def call_killed(run_id: str) -> None:
    """Say of the steps of a run that were interrupted that they are KILLED, where MLflow called them FAILED.

    MLflow 3.17 asks ``RunStatus.is_terminated`` of a text, which is never true, and overwrites what a step said of itself.
    """
    client = MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    mine = f"tags.`{PARENT}` = '{run_id}' and tags.`{interruption.TAG}` != '' and attributes.status = 'FAILED'"
    for step in client.search_runs([experiment_id], mine, max_results=10):
        client.set_terminated(step.info.run_id, "KILLED", step.info.end_time)


def _last(run: Run, ignored: str) -> Run | None:
    """The latest of the earlier calls with the same parameters and the same commit."""
    commit = run.data.tags.get(COMMIT)
    if commit is None or run.data.tags.get(ENTRY_POINT) != "main":
        return None
    values = {key: _recorded(text) for key, text in run.data.params.items() if key != ignored}
    same = f"tags.`{ENTRY_POINT}` = 'main' and tags.`{COMMIT}` = '{commit}'"
    earlier = MlflowClient().search_runs([run.info.experiment_id], same, order_by=["attributes.start_time DESC"], max_results=LOOKED_AT)
    found = (one for one in earlier if one.info.run_id != run.info.run_id and one.info.start_time <= run.info.start_time)
    return next((one for one in found if _has(one, values)), None)


def _over(step: Run) -> Run:
    """A step as it is when its process is over: one whose ``main`` was killed makes its snapshot first, and one may never have begun."""
    deadline = time.monotonic() + GRACE
    while step.info.status == "RUNNING" and heartbeat.is_alive(step) and time.monotonic() < deadline:
        time.sleep(1)
        step = mlflow.get_run(step.info.run_id)
    if step.info.status == "RUNNING" and not heartbeat.is_alive(step):
        heartbeat.call_dead(step.info.run_id)
        step = mlflow.get_run(step.info.run_id)
    return step


def _has(run: Run, values: dict[str, Any]) -> bool:
    """Whether a run has parameters of these values."""
    return all(key in run.data.params and _recorded(run.data.params[key]) == value for key, value in values.items())


def _recorded(text: str) -> Any:
    """The value of a parameter that MLflow Projects wrote down, quoted for the shell."""
    return _value(" ".join(shlex.split(text)))


def _value(text: str) -> Any:
    """Numbers, lists and objects by their value, all else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
