"""Run entry points of the project as child runs, or reuse runs of an unfinished call."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT
from mlflow.exceptions import ExecutionException

from mlflow_sb3.client import env_vars, retry
from mlflow_sb3.runs import previous_attempt, signals
from mlflow_sb3.runs.previous_attempt import PreviousAttempt
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.training import resume

PROJECT = Path(__file__).parents[2]
"""Folder of the project, with the file ``MLproject``."""

Report = Callable[[str], object]


class StepFailedError(Exception):
    """A step of the workflow failed."""


class StepRunner:
    """Runs entry points of this project as child runs, or reuses finished runs."""

    def __init__(
        self, run_id: str, attempt: PreviousAttempt, trust: FileTrust, report: Report
    ) -> None:
        self._run_id = run_id
        self._attempt = attempt
        self._trust = trust
        self._report = report

    def train(self, parameters: dict[str, Any], state_folder: str) -> Run:
        """Run ``train``, reuse a finished training, or resume an interrupted training.

        A training whose agent or snapshot may not be unpickled is neither reused nor resumed.

        Args:
            parameters: Parameters that decide the trained weights.
            state_folder: See ``state_dir.get_state_dir``.
        """
        finished = self._attempt.find_finished_step("train", parameters)
        if finished is not None and self._is_trusted(finished):
            return self._reuse("train", finished)
        settings = {
            "state_folder": state_folder,
            "signing_key": self._trust.signing_key,
            "public_key": self._trust.public_key,
        }
        for interrupted in self._attempt.find_unfinished_steps("train", parameters):
            # The journal may show that the training finished, although the server has not received
            # that yet.
            run = resume.flush_journal(interrupted, state_folder)
            if run.info.status == "FINISHED" and self._is_trusted(run):
                return self._reuse("train", run)
            if resume.has_trusted_snapshot(run, state_folder, self._trust):
                run_id = run.info.run_id
                note = f": resumes run {run_id} from its last snapshot"
                return self._call("train", parameters | settings | {"resume": run_id}, note)
        return self._call("train", parameters | settings)

    def run(
        self,
        entry_point: str,
        parameters: dict[str, Any],
        settings: dict[str, Any] | None = None,
        *,
        is_trusted: Callable[[Run], bool] = lambda run: True,  # noqa: ARG005
    ) -> Run:
        """Run an entry point, or reuse a finished run with the same parameters.

        Args:
            entry_point: Name of the entry point.
            parameters: Parameters that decide the result.
            settings: Further parameters. A finished run is reused even if it has other values.
            is_trusted: Returns whether a finished run may be reused. Another user may have made it.
        """
        finished = self._attempt.find_finished_step(entry_point, parameters)
        if finished is not None and is_trusted(finished):
            return self._reuse(entry_point, finished)
        return self._call(entry_point, parameters | (settings or {}))

    def _is_trusted(self, run: Run) -> bool:
        if self._trust.is_agent_trusted(run):
            return True
        self._report(
            f"== train: does not reuse run {run.info.run_id}, because its agent is not signed by a "
            "key that you trust. Set public_key or allow_pickle=true to reuse it."
        )
        return False

    def _reuse(self, entry_point: str, run: Run) -> Run:
        self._report(
            f"== {entry_point}: reuses run {run.info.run_id}, which finished with the same "
            "parameters and code"
        )
        return run

    def _call(self, entry_point: str, parameters: dict[str, Any], note: str = "") -> Run:
        self._report(f"== {entry_point}{note}")
        try:
            with signals.prefer_interrupt(), _hide_project_messages():
                submitted = mlflow.run(  # type: ignore[no-untyped-call]
                    str(PROJECT),
                    entry_point,
                    parameters=parameters
                    | {"allow_pickle": format_parameter(self._trust.allow_pickle)},
                    env_manager="local",
                    run_name=entry_point,
                )
        except Interrupted:
            # MLflow has passed the signal on to the step and waited for its end.
            with suppress(*retry.CONNECTION_ERRORS):
                previous_attempt.mark_steps_killed(self._run_id)
            raise
        except ExecutionException as error:
            raise StepFailedError(
                f"Step {entry_point} failed: {error.message}. See the error of the step above."
            ) from error
        return mlflow.get_run(submitted.run_id)


def format_parameter(value: Any) -> str:
    """Return a value as the text of an MLflow Project parameter. None becomes an empty text."""
    if value is None:
        return ""
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value)
    return str(value)


@contextmanager
def _hide_project_messages() -> Iterator[None]:
    """Hide MLflow's messages with the command, the folder, the end and the address of each step.

    The run of the step has the same information, and the command has up to 30 parameters.
    """
    logger = logging.getLogger("mlflow.projects")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with env_vars.override_env({MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.name: "true"}):
            yield
    finally:
        logger.setLevel(level)
