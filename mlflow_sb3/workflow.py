"""Run the entry points of the project one after the other, and reuse steps of unfinished calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException, MlflowException

from mlflow_sb3.client import preflight, retry
from mlflow_sb3.envs import entry_points, wrapper_config
from mlflow_sb3.inference import agent_files
from mlflow_sb3.registry import names, registration, versions
from mlflow_sb3.runs import previous_attempt, signals
from mlflow_sb3.runs.previous_attempt import PreviousAttempt
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking import file_trust
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.training import resume

PROJECT = Path(__file__).parents[1]
"""Folder of the project, with the file ``MLproject``."""
VERSION_TAG = "mlflow_sb3.version"
VERDICT_TAG = "mlflow_sb3.verdict"

Report = Callable[[str], object]


class StepFailedError(Exception):
    """A step of the workflow failed."""


@dataclass(frozen=True, kw_only=True)
class WorkflowOptions:
    """Parameters of the entry point ``main``."""

    training: dict[str, str]
    """Parameters that are passed on to ``train``."""
    model_name: str
    """Name of the registered model."""
    inference: str
    episodes: int
    """Episodes of ``evaluate``."""
    gate_episodes: int
    """Largest number of pairs of episodes of ``promote``."""
    min_return: float | None
    alpha_per_reign: float | None
    approval: str
    fail_on_reject: bool
    signing_key: str
    public_key: str
    allow_pickle: bool
    state_folder: str
    fresh: bool
    """Whether to ignore unfinished calls with the same parameters."""

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> WorkflowOptions:
        """Separate the parameters of ``train``. Without ``model_name``, use the default name."""
        own = {field.name for field in fields(cls)}
        values = {key: value for key, value in parameters.items() if key in own}
        values["model_name"] = parameters["model_name"] or names.get_default_model_name(
            parameters["env"], parameters["algo"]
        )
        training = {
            key: _format_parameter(value) for key, value in parameters.items() if key not in own
        }
        return cls(training=training, **values)

    @property
    def trust(self) -> FileTrust:
        """The keys that sign and verify files of the runs, and whether to trust other files."""
        return FileTrust(self.signing_key, self.public_key, self.allow_pickle)


def run_workflow(run_id: str, options: WorkflowOptions, *, report: Report) -> None:
    """Train an agent, register it, promote it if it is better, and evaluate the champion.

    Each step is a child run. If an earlier call with the same parameters and code did not finish,
    its finished steps are reused (see ``previous_attempt``). If there is no champion, the new
    version is evaluated.

    Args:
        run_id: Active run, which becomes the parent of the steps.
        options: Parameters of ``main``.
        report: Called with each message for the user.

    Raises:
        MlflowException: A parameter is invalid, or a permission is missing.
        StepFailedError: A step failed.
        Interrupted: A signal stopped the workflow.
    """
    _check_options(run_id, options)
    attempt = previous_attempt.continue_previous_attempt(run_id, fresh=options.fresh)
    steps = StepRunner(run_id, attempt, options.trust, report)
    if attempt.steps:
        report(
            f"Resuming run {attempt.run_id}, which has the same parameters and code and did not "
            "finish. Set fresh=true to start anew."
        )
    trained = steps.train(options.training, options.state_folder)
    version = _log_model(steps, trained.info.run_id, options)
    _promote(steps, version, options)
    _evaluate(steps, version, options)


def _check_options(run_id: str, options: WorkflowOptions) -> None:
    """Check before the training what a later step would reject."""
    names.check_model_name(options.model_name)
    options.trust.check_keys()
    wrappers = json.loads(options.training["wrappers"])
    entry_points.trust_options(
        options.training["env"], map(wrapper_config.get_entry_point, wrappers)
    )
    agent_files.check_unpickling_allowed(
        "log_model, which reads the trained agent,", is_trusted=True
    )
    if options.inference == "native":
        agent_files.check_unpickling_allowed(
            "Evaluating an agent with inference=native",
            is_trusted=options.allow_pickle or bool(options.public_key),
        )
    preflight.check_artifacts(run_id)
    preflight.check_registry(options.model_name, "MANAGE")


def _log_model(steps: StepRunner, run_id: str, options: WorkflowOptions) -> str:
    """Register the trained agent, and return the number of the version."""
    parameters = {
        "run_id": run_id,
        "model_name": options.model_name,
        "inference": options.inference,
        "signing_key": options.signing_key,
    }
    settings = {"public_key": options.public_key}
    is_trusted = partial(
        has_registered_here, model_name=options.model_name, signing_key=options.signing_key
    )
    run = steps.run("log_model", parameters, settings, is_trusted=is_trusted)
    version: str = run.data.tags[VERSION_TAG]
    mlflow.set_tag(VERSION_TAG, version)
    return version.rpartition("/")[2]


def has_registered_here(run: Run, model_name: str, signing_key: str) -> bool:
    """Return whether a finished run of ``log_model`` registered a version on this machine."""
    name, _, number = run.data.tags.get(VERSION_TAG, "").rpartition("/")
    if name != model_name or not number.isdecimal():
        return False
    try:
        version = versions.find_version(name, number=int(number))
    except MlflowException:  # the version was deleted
        return False
    return registration.is_registered_here(
        version, file_trust.get_machine_key(), signing_key=signing_key or None
    )


def _promote(steps: StepRunner, version: str, options: WorkflowOptions) -> None:
    parameters = {
        "model_name": options.model_name,
        "version": version,
        "episodes": options.gate_episodes,
        "min_return": _format_parameter(options.min_return),
        "alpha_per_reign": _format_parameter(options.alpha_per_reign),
        "approval": options.approval,
        "fail_on_reject": _format_parameter(options.fail_on_reject),
        "public_key": options.public_key,
    }
    promoted = steps.run("promote", parameters)
    mlflow.set_tag(VERDICT_TAG, promoted.data.tags[VERDICT_TAG])


def _evaluate(steps: StepRunner, version: str, options: WorkflowOptions) -> None:
    """Evaluate the champion, or the new version if there is no champion."""
    parameters: dict[str, Any] = {
        "model_name": options.model_name,
        "episodes": options.episodes,
        "public_key": options.public_key,
    }
    if versions.find_champion(options.model_name, "champion") is None:
        parameters["version"] = version
    steps.run("evaluate", parameters)


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
            with signals.prefer_interrupt():
                submitted = mlflow.run(  # type: ignore[no-untyped-call]
                    str(PROJECT),
                    entry_point,
                    parameters=parameters
                    | {"allow_pickle": _format_parameter(self._trust.allow_pickle)},
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


def _format_parameter(value: Any) -> str:
    """Return a value as the text of an MLflow Project parameter. None becomes an empty text."""
    if value is None:
        return ""
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value)
    return str(value)
