"""Find an interrupted call of ``main``, and continue with its steps.

A previous attempt is a call of ``main`` with the same parameters, commit and uncommitted changes.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.runs import git, heartbeat, signals
from mlflow_sb3.runs.git import COMMIT_TAG

ENTRY_POINT_TAG = "mlflow.project.entryPoint"
PARENT_RUN_TAG = "mlflow.parentRunId"
CONTINUES_TAG = "mlflow_sb3.continues"
"""Tag of a run of ``main``: id of an earlier run of ``main``, from which it took over steps."""
CHANGES_TAG = "mlflow.sb3.changes"
"""Tag of a run of ``main``: digest of the uncommitted changes."""
MAX_ATTEMPTS = 50
"""Number of latest runs of ``main`` to search for a previous attempt."""
STEP_END_TIMEOUT = 30.0
"""How long to wait until the steps of a killed ``main`` have ended, in seconds."""
_IGNORED_PARAMS = frozenset({"fresh", "public_key", "allow_pickle"})
"""Parameters of ``main`` that a later attempt may change.

If ``public_key`` changes, ``promote`` and ``evaluate`` run again, because ``find_finished_step``
compares the parameters of these steps.
"""


@dataclass(frozen=True)
class PreviousAttempt:
    """A call of ``main`` and the steps that can be reused.

    Attributes:
        run_id: Run of the previous call, or of this call if there is no previous attempt.
        steps: Runs of the steps, latest first. Steps of still earlier attempts are included.
    """

    run_id: str
    steps: list[Run]

    def find_finished_step(self, entry_point: str, parameters: dict[str, Any]) -> Run | None:
        """Return the latest finished step of an entry point.

        Args:
            entry_point: Name of the entry point.
            parameters: Parameters that the step must have. It may have more.
        """
        steps = self._find_steps(entry_point, parameters)
        return next((step for step in steps if step.info.status == "FINISHED"), None)

    def find_unfinished_steps(self, entry_point: str, parameters: dict[str, Any]) -> list[Run]:
        """Return the steps of an entry point that did not finish, latest first.

        Args:
            entry_point: Name of the entry point.
            parameters: Parameters that the step must have. It may have more.
        """
        steps = self._find_steps(entry_point, parameters)
        return [step for step in steps if step.info.status != "FINISHED"]

    def _find_steps(self, entry_point: str, parameters: dict[str, Any]) -> Iterator[Run]:
        values = {key: _parse_value(str(value)) for key, value in parameters.items()}
        for step in self.steps:
            if step.data.tags.get(ENTRY_POINT_TAG) == entry_point and _has_params(step, values):
                yield step


def continue_previous_attempt(run_id: str, *, fresh: bool) -> PreviousAttempt:
    """Find the previous attempt of a run of ``main``, and take over its steps.

    The steps become children of the new run. The search starts at the latest attempt and skips
    attempts without steps. It ends without a result at an attempt that finished or is still
    running.

    Args:
        run_id: Run of ``main`` that ``mlflow run`` created.
        fresh: Take over nothing.

    Returns:
        The previous attempt. If there is none, the run of this call without steps.
    """
    client = MlflowClient()
    client.set_tag(run_id, CHANGES_TAG, git.hash_uncommitted_changes())
    for attempt in [] if fresh else _find_attempts(client.get_run(run_id)):
        if attempt.info.status == "FINISHED" or _is_running(attempt):
            break
        if steps := _find_steps(attempt):
            # Set the tag first, so that no step is lost if this process is killed meanwhile.
            client.set_tag(run_id, CONTINUES_TAG, attempt.info.run_id)
            for step in steps:
                client.set_tag(step.info.run_id, PARENT_RUN_TAG, run_id)
            return PreviousAttempt(attempt.info.run_id, [_wait_for_end(step) for step in steps])
    return PreviousAttempt(run_id, [])


def mark_steps_killed(run_id: str) -> None:
    """Set the status of the interrupted steps of a run to KILLED.

    An interrupted step does this itself, but ``mlflow run`` of MLflow 3.17 then sets FAILED,
    because it passes a string to ``RunStatus.is_terminated``.
    """
    client = MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    interrupted_steps = (
        f"tags.`{PARENT_RUN_TAG}` = '{run_id}' and tags.`{signals.INTERRUPTED_TAG}` != '' "
        "and attributes.status = 'FAILED'"
    )
    for step in client.search_runs([experiment_id], interrupted_steps, max_results=10):
        client.set_terminated(step.info.run_id, "KILLED", step.info.end_time)


def _find_attempts(run: Run) -> list[Run]:
    """Return the previous attempts of a run of ``main``, latest first."""
    commit = run.data.tags.get(COMMIT_TAG)
    if commit is None or run.data.tags.get(ENTRY_POINT_TAG) != "main":
        return []
    same_code = (
        f"tags.`{ENTRY_POINT_TAG}` = 'main' and tags.`{COMMIT_TAG}` = '{commit}' "
        f"and tags.`{CHANGES_TAG}` = '{run.data.tags[CHANGES_TAG]}'"
    )
    runs = MlflowClient().search_runs(
        [run.info.experiment_id],
        same_code,
        order_by=["attributes.start_time DESC"],
        max_results=MAX_ATTEMPTS,
    )
    values = {
        key: _parse_recorded_value(text)
        for key, text in run.data.params.items()
        if key not in _IGNORED_PARAMS
    }
    return [
        attempt
        for attempt in runs
        if attempt.info.run_id != run.info.run_id
        and attempt.info.start_time <= run.info.start_time
        and _has_params(attempt, values)
    ]


def _is_running(attempt: Run) -> bool:
    return attempt.info.status == "RUNNING" and heartbeat.is_alive_after_watching(attempt)


def _find_steps(attempt: Run) -> list[Run]:
    """Return the steps of an attempt and of the attempts that it continued.

    An attempt that was killed while it took over steps has only some of them.
    """
    client = MlflowClient()
    steps: list[Run] = []
    visited: set[str] = set()
    run: Run | None = attempt
    while run is not None and run.info.run_id not in visited:
        visited.add(run.info.run_id)
        steps += client.search_runs(
            [run.info.experiment_id],
            f"tags.`{PARENT_RUN_TAG}` = '{run.info.run_id}'",
            order_by=["attributes.start_time DESC"],
            max_results=100,
        )
        continued = run.data.tags.get(CONTINUES_TAG)
        run = None if continued is None else client.get_run(continued)
    return steps


def _wait_for_end(step: Run) -> Run:
    """Wait until the process of a step has ended, and return the step.

    A step of a killed ``main`` may still write its snapshot. After ``STEP_END_TIMEOUT``, or if its
    process was killed, the step is marked as failed. A step on another machine is watched first,
    which takes up to ``heartbeat.WATCH_TIMEOUT``.
    """
    deadline = time.monotonic() + STEP_END_TIMEOUT
    while step.info.status == "RUNNING":
        if not heartbeat.is_alive_after_watching(step):
            heartbeat.mark_failed(step.info.run_id)
        elif time.monotonic() >= deadline:
            heartbeat.mark_failed(step.info.run_id, heartbeat.TOO_LONG_REASON)
        else:
            time.sleep(1)
        step = mlflow.get_run(step.info.run_id)
    return step


def _has_params(run: Run, values: dict[str, Any]) -> bool:
    return all(
        key in run.data.params and _parse_recorded_value(run.data.params[key]) == value
        for key, value in values.items()
    )


def _parse_recorded_value(text: str) -> Any:
    """Parse a parameter that MLflow Projects recorded with quotes for the shell."""
    try:
        return _parse_value(" ".join(shlex.split(text)))
    except ValueError:  # MLflow cut the text, so a quote is missing
        return text


def _parse_value(text: str) -> Any:
    """Parse JSON, so that ``5e4`` equals ``50000``, or return other text unchanged."""
    try:
        return json.loads(text)
    except ValueError:
        return text
