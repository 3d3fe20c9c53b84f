"""Train, register, promote and evaluate an agent: the entry point ``main``."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import preflight
from mlflow_sb3.envs import entry_points, wrapper_config
from mlflow_sb3.inference import agent_files
from mlflow_sb3.registry import names, registration, versions
from mlflow_sb3.registry.model_version import VERSION_TAG
from mlflow_sb3.runs import previous_attempt, run_name
from mlflow_sb3.tracking import file_trust
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.workflow import workflow_report
from mlflow_sb3.workflow.step_runner import Report, StepRunner, format_parameter
from mlflow_sb3.workflow.summary import Summary


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
    video: bool
    """Whether ``evaluate`` records a video."""
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
            key: format_parameter(value) for key, value in parameters.items() if key not in own
        }
        return cls(training=training, **values)

    @property
    def name(self) -> str:
        """Name of the run, such as ``main CartPole-v1 dqn seed 0``."""
        return "main {env} {algo} seed {seed}".format_map(self.training)

    @property
    def trust(self) -> FileTrust:
        """The keys that sign and verify files of the runs, and whether to trust other files."""
        return FileTrust(self.signing_key, self.public_key, self.allow_pickle)


def run_workflow(run_id: str, options: WorkflowOptions, *, report: Report) -> Summary:
    """Train an agent, register it, promote it if it is better, and evaluate the champion.

    Each step is a child run. If an earlier call with the same parameters and code did not finish,
    its finished steps are reused (see ``previous_attempt``). If there is no champion, the new
    version is evaluated.

    Args:
        run_id: Active run, which becomes the parent of the steps.
        options: Parameters of ``main``.
        report: Called with each message for the user.

    Returns:
        The runs of the steps. Their summary is logged to the run.

    Raises:
        MlflowException: A parameter is invalid, or a permission is missing.
        StepFailedError: A step failed.
        Interrupted: A signal stopped the workflow.
    """
    mlflow.set_tags(run_name.build_tags(options.name))
    _check_options(run_id, options)
    attempt = previous_attempt.continue_previous_attempt(run_id, fresh=options.fresh)
    steps = StepRunner(run_id, attempt, options.trust, report)
    if attempt.steps:
        report(
            f"Resuming run {attempt.run_id}, which has the same parameters and code and did not "
            "finish. Set fresh=true to start anew."
        )
    trained = steps.train(options.training, options.state_folder)
    logged = _log_model(steps, trained.info.run_id, options)
    version = logged.data.tags[VERSION_TAG].rpartition("/")[2]
    promoted = _promote(steps, version, options)
    champion = versions.find_champion(options.model_name, "champion")
    evaluated = _evaluate(steps, version if champion is None else "", options)
    summary = Summary(options.name, champion, trained, logged, promoted, evaluated)
    summary.log(run_id)
    workflow_report.log_workflow_report(summary)
    return summary


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


def _log_model(steps: StepRunner, run_id: str, options: WorkflowOptions) -> Run:
    """Register the trained agent."""
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
    mlflow.set_tag(VERSION_TAG, run.data.tags[VERSION_TAG])
    return run


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


def _promote(steps: StepRunner, version: str, options: WorkflowOptions) -> Run:
    parameters = {
        "model_name": options.model_name,
        "version": version,
        "episodes": options.gate_episodes,
        "min_return": format_parameter(options.min_return),
        "alpha_per_reign": format_parameter(options.alpha_per_reign),
        "approval": options.approval,
        "fail_on_reject": format_parameter(options.fail_on_reject),
        "public_key": options.public_key,
    }
    return steps.run("promote", parameters)


def _evaluate(steps: StepRunner, version: str, options: WorkflowOptions) -> Run:
    """Evaluate a version, or the champion if ``version`` is empty."""
    parameters: dict[str, Any] = {
        "model_name": options.model_name,
        "episodes": options.episodes,
        "video": format_parameter(options.video),
        "public_key": options.public_key,
    }
    if version:
        parameters["version"] = version
    return steps.run("evaluate", parameters)
