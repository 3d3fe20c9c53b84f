"""What earlier calls of ``main`` did before they were interrupted: the steps that finished, and the trainings that can be gone on with."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.runs import git, heartbeat, lease, signals
from mlflow_sb3.runs.git import COMMIT_TAG

ENTRY_POINT = "mlflow.project.entryPoint"
PARENT = "mlflow.parentRunId"
CONTINUES = "mlflow_sb3.continues"
"""Tag of a run of ``main``: the one that it goes on with, whose steps it has taken over."""
CHANGES = "mlflow_sb3.changes"
"""Tag of a run of ``main``: digest of what is not committed in the project's folder."""
MAX_CALLS = 50
"""Latest calls of ``main`` on a commit among which the earlier ones are looked for."""
STEP_END_TIMEOUT = 30.0
"""Seconds to wait for steps of a dead ``main`` to end by themselves."""
_NO_DIFFERENCE = frozenset({"fresh", "exclusive"})
"""Parameters that say when to work, and not what comes out."""


@dataclass(frozen=True)
class PreviousAttempt:
    """Earlier calls with the same parameters on the same code, and their steps, the newest first."""

    run_id: str
    steps: list[Run]

    def finished(self, entry_point: str, parameters: dict[str, Any]) -> Run | None:
        """A step that finished, with these parameters; more than these do not count."""
        return next(
            (step for step in self._of(entry_point, parameters) if step.info.status == "FINISHED"),
            None,
        )

    def unfinished(self, entry_point: str, parameters: dict[str, Any]) -> list[Run]:
        """The steps that did not finish, with these parameters, the last one first."""
        return [
            step for step in self._of(entry_point, parameters) if step.info.status != "FINISHED"
        ]

    def _of(self, entry_point: str, parameters: dict[str, Any]) -> list[Run]:
        values = {key: _value(str(given)) for key, given in parameters.items()}
        return [
            step
            for step in self.steps
            if step.data.tags.get(ENTRY_POINT) == entry_point and _has(step, values)
        ]


def find_previous_attempt(run_id: str, *, fresh: bool, exclusive: bool = False) -> PreviousAttempt:
    """Find the last call with the parameters and the code of a run of ``main``, and take its steps over if it did not finish.

    Args:
        run_id: Of ``main``, started by ``mlflow run``.
        fresh: Go on with nothing; the parameter of that name may differ.
        exclusive: The run holds the lease; the parameter of that name may differ, too.

    Returns:
        Without steps, where there is nothing to go on with.
    """
    client = MlflowClient()
    client.set_tag(run_id, CHANGES, git.changes_digest())
    for earlier in [] if fresh else _earlier(client.get_run(run_id)):
        if earlier.info.status == "FINISHED" or _is_at_work(earlier, exclusive=exclusive):
            break
        if steps := _steps(earlier):
            client.set_tag(
                run_id, CONTINUES, earlier.info.run_id
            )  # before they move: whoever is killed in between has lost none
            for step in steps:
                client.set_tag(step.info.run_id, PARENT, run_id)
            return PreviousAttempt(earlier.info.run_id, [_over(step) for step in steps])
    return PreviousAttempt(run_id, [])


def mark_killed(run_id: str) -> None:
    """Say of the steps of a run that were interrupted that they are KILLED, where MLflow called them FAILED.

    MLflow 3.17 asks ``RunStatus.is_terminated`` of a text, which is never true, and overwrites what a step said of itself.
    """
    client = MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    mine = f"tags.`{PARENT}` = '{run_id}' and tags.`{signals.INTERRUPTED_TAG}` != '' and attributes.status = 'FAILED'"
    for step in client.search_runs([experiment_id], mine, max_results=10):
        client.set_terminated(step.info.run_id, "KILLED", step.info.end_time)


def _earlier(run: Run) -> list[Run]:
    """The earlier calls with the same parameters on the same code, the last one first."""
    commit = run.data.tags.get(COMMIT_TAG)
    if commit is None or run.data.tags.get(ENTRY_POINT) != "main":
        return []
    values = {
        key: _recorded(text) for key, text in run.data.params.items() if key not in _NO_DIFFERENCE
    }
    same = f"tags.`{ENTRY_POINT}` = 'main' and tags.`{COMMIT_TAG}` = '{commit}' and tags.`{CHANGES}` = '{run.data.tags[CHANGES]}'"
    same += f" and tags.`{lease.LEFT}` IS NULL"  # a call that left did nothing
    calls = MlflowClient().search_runs(
        [run.info.experiment_id],
        same,
        order_by=["attributes.start_time DESC"],
        max_results=MAX_CALLS,
    )
    before = (
        call
        for call in calls
        if call.info.run_id != run.info.run_id and call.info.start_time <= run.info.start_time
    )
    return [call for call in before if _has(call, values)]


def _is_at_work(call: Run, *, exclusive: bool) -> bool:
    """Whether a call is alive, and has not to leave because this one holds the lease."""
    leaves = exclusive and _recorded(call.data.params.get("exclusive", "false")) is True
    return call.info.status == "RUNNING" and not leaves and heartbeat.is_alive_after_watching(call)


def _steps(call: Run) -> list[Run]:
    """The steps of a call and of those that it went on with; one that was killed while it took them over has a part of them."""
    client = MlflowClient()
    steps: list[Run] = []
    run: Run | None = call
    while run is not None:
        mine = f"tags.`{PARENT}` = '{run.info.run_id}'"
        steps += client.search_runs(
            [run.info.experiment_id], mine, order_by=["attributes.start_time DESC"], max_results=100
        )
        before = run.data.tags.get(CONTINUES)
        run = None if before is None else client.get_run(before)
    return steps


def _over(step: Run) -> Run:
    """A step as it is when its process is over: one whose ``main`` was killed makes its snapshot first, and one may never have begun."""
    deadline = time.monotonic() + STEP_END_TIMEOUT
    while (
        step.info.status == "RUNNING"
        and heartbeat.is_alive_after_watching(step)
        and time.monotonic() < deadline
    ):
        time.sleep(1)
        step = mlflow.get_run(step.info.run_id)
    if step.info.status == "RUNNING":
        heartbeat.mark_failed(step.info.run_id)
    return mlflow.get_run(step.info.run_id)


def _has(run: Run, values: dict[str, Any]) -> bool:
    """Whether a run has parameters of these values."""
    return all(
        key in run.data.params and _recorded(run.data.params[key]) == value
        for key, value in values.items()
    )


def _recorded(text: str) -> Any:
    """The value of a parameter that MLflow Projects wrote down, quoted for the shell."""
    try:
        return _value(" ".join(shlex.split(text)))
    except ValueError:  # cut short by MLflow, within the quotes
        return text


def _value(text: str) -> Any:
    """Numbers, lists and objects by their value, all else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
