"""Run the step ``train`` in an MLflow run: train or resume, and log the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mlflow_sb3.client import preflight
from mlflow_sb3.client.permissions import MissingPermissionError
from mlflow_sb3.registry import names
from mlflow_sb3.runs import previous_attempt, run_name, signals, state_dir
from mlflow_sb3.runs.signals import Interrupted, StopRequest
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR
from mlflow_sb3.training import finetune, loop, provenance, resume, training_run
from mlflow_sb3.training.config import TrainingConfig, resolve_config
from mlflow_sb3.training.loop import TrainingResult
from mlflow_sb3.training.resume_point import ResumePoint
from mlflow_sb3.training.snapshot_writer import SnapshotWriter

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

_SNAPSHOT_FILES = "*.snapshot"


class OptionConflictError(ValueError):
    """An option of a resumed training differs from the interrupted training."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training that do not affect the weights."""

    snapshot_every: int | None = None
    """Environment steps between two snapshots.

    None: choose the interval so that snapshots take at most 2 % of the training time.
    """
    state_folder: str = ""
    """See ``state_dir.get_state_dir``."""
    delivery_timeout: float = 60.0
    """Seconds to wait for the tracking server after the training."""
    trust: FileTrust = field(default_factory=FileTrust)
    """The keys that sign and verify snapshots and agents, and whether to trust other files."""
    warn: Callable[[str], object] = lambda message: None  # noqa: ARG005
    """Called with each message for the user."""


@dataclass(frozen=True)
class _TrainingPlan:
    """A training that is about to start or to resume."""

    config: TrainingConfig
    options: dict[str, Any]
    """Options of the user. A resumed training inherits them."""
    base_model: BaseAlgorithm | None = None
    resumed_run_ids: Sequence[str] = ()
    """The interrupted run, the run that wrote its snapshot, and the runs that this run resumed."""
    resume_point: ResumePoint | None = None


def start_training(run_id: str, options: dict[str, Any], settings: TrainSettings) -> TrainingResult:
    """Train an agent in an MLflow run.

    Args:
        run_id: Run to log to.
        options: Arguments of ``resolve_config``.
        settings: Settings that do not affect the weights.

    Raises:
        MlflowException: An option is invalid, or the run cannot be written to.
        Interrupted: A signal stopped the training.
    """
    settings.trust.check_keys()
    config, base_agent = resolve_config(**options, trust=settings.trust)
    base_model = None if base_agent is None else base_agent.model
    return _train(run_id, _TrainingPlan(config, options, base_model), settings)


def resume_training(
    run_id: str, interrupted_run_id: str, user_options: dict[str, Any], settings: TrainSettings
) -> TrainingResult:
    """Resume an interrupted training from its last snapshot, in another MLflow run.

    Args:
        run_id: Run to log to.
        interrupted_run_id: Run of the interrupted training.
        user_options: Options that the user set to other values than their defaults. Each must
            equal the option of the interrupted training.
        settings: Settings that do not affect the weights.

    Raises:
        OptionConflictError: An option has another value than in the interrupted training.
        MlflowException: There is no snapshot, or the run cannot be written to.
        Interrupted: A signal stopped the training.
    """
    settings.trust.check_keys()
    # Set the tag first. If this run is interrupted before its first snapshot, a later call follows
    # the tag to the snapshot of the earlier run.
    MlflowClient().set_tag(run_id, resume.RESUMED_FROM_TAG, interrupted_run_id)
    with resume.find_snapshot(
        interrupted_run_id, settings.state_folder, trust=settings.trust
    ) as resume_point:
        context = resume_point.header.context
        config, options = TrainingConfig(**context["recipe"]), context["asked"]
        check_same_options(interrupted_run_id, user_options, options, config)
        plan = _TrainingPlan(
            config,
            options,
            resumed_run_ids=list(
                dict.fromkeys(
                    [interrupted_run_id, resume_point.run_id, *context.get("resumed_runs", [])]
                )
            ),
            resume_point=resume_point,
        )
        return _train(run_id, plan, settings)


def check_same_options(
    run_id: str, user_options: dict[str, Any], options: dict[str, Any], config: TrainingConfig
) -> None:
    """Check that the user sets no option to another value than in the interrupted training.

    An option passes if it has the value of the interrupted training in ``options`` or ``config``.
    ``config`` has, for example, the number of timesteps that a preset supplied.

    Args:
        run_id: Run of the interrupted training.
        user_options: Options that the user sets now.
        options: All options of the interrupted training, including those left at their default.
        config: Configuration that was resolved from ``options``.

    Raises:
        OptionConflictError: An option has another value than in the interrupted training.
    """
    for name, value in user_options.items():
        if name in options and value == options[name]:
            continue
        # config.preset describes the origin of the hyperparameters. It is not an option value.
        if name == "preset" or value != getattr(config, name):
            raise OptionConflictError(
                f"Run {run_id} was trained with {name}={options.get(name)!r}, "
                f"but {name} is now {value!r}. Leave {name} out to resume the training, "
                "or leave out the option resume to train a new agent."
            )


def _train(run_id: str, plan: _TrainingPlan, settings: TrainSettings) -> TrainingResult:
    """Check the run, train, log the agent, and delete the state of the interrupted training."""
    _check_run(run_id, plan.config, settings)
    state_dir.delete_old_run_dirs(_SNAPSHOT_FILES, settings.state_folder)
    folder = state_dir.get_run_dir(run_id, settings.state_folder)
    with _report_resume_command(run_id, folder, settings), signals.defer_signals() as stop:
        if plan.config.from_model_id:
            finetune.log_lineage(run_id, plan.config.from_model_id)
        with RunLogger(
            run_id, folder, delivery_timeout=settings.delivery_timeout, trust=settings.trust
        ) as run_logger:
            result = _train_and_log(plan, run_logger, folder, settings, stop)
        # Signals are still deferred, so that a signal cannot prevent the deletion of the
        # interrupted run's snapshots.
        resume.delete_training_state(plan.resumed_run_ids, settings.state_folder)
    return result


def _train_and_log(
    plan: _TrainingPlan,
    run_logger: RunLogger,
    folder: Path,
    settings: TrainSettings,
    stop: StopRequest,
) -> TrainingResult:
    config = plan.config
    facts = provenance.collect_facts(config.torch_threads)
    run_logger.log_params(config.to_params())
    if tags := run_name.build_tags(f"train {config.env} {config.algo} seed {config.seed}"):
        run_logger.set_tags(tags)
    snapshot_writer = SnapshotWriter(
        folder / SNAPSHOT_DIR,
        every=settings.snapshot_every,
        context={
            "asked": plan.options,
            "recipe": config.to_json(),
            "facts": facts.to_json(),
            "resumed_runs": plan.resumed_run_ids,
        },
        get_extra=run_logger.get_metric_state,
        on_written=run_logger.offer_snapshot,
    )
    state = None
    if plan.resume_point is not None:
        state = plan.resume_point.resume_in(run_logger, facts)
    result = loop.train(
        config.description,
        config.algo,
        timesteps=config.timesteps,
        seed=config.seed,
        hyperparams=config.hyperparams,
        evaluation=config.evaluation,
        base_model=plan.base_model,
        writers=[MetricWriter(run_logger)],
        snapshot_writer=snapshot_writer,
        resume_from=state,
        stop=stop,
        progress=True,
        torch_threads=config.torch_threads,
    )
    training_run.log_training_run(result, config, facts, run_logger, trust=settings.trust)
    return result


def _check_run(run_id: str, config: TrainingConfig, settings: TrainSettings) -> None:
    """Check the permissions and the artifact store before hours of training.

    A missing permission on the default model name only causes a warning, because ``log_model`` may
    use another name. If ``main`` started this run, it has already checked the name.
    """
    preflight.check_artifacts(run_id)
    if previous_attempt.PARENT_RUN_TAG in MlflowClient().get_run(run_id).data.tags:
        return
    try:
        preflight.check_registry(names.get_default_model_name(config.env, config.algo), "EDIT")
    except MissingPermissionError as error:
        settings.warn(f"Warning: {error.message} Or call log_model with another model_name.")


@contextmanager
def _report_resume_command(run_id: str, folder: Path, settings: TrainSettings) -> Iterator[None]:
    """If the training is interrupted, pass the command that resumes it to ``settings.warn``."""
    try:
        yield
    except Interrupted:
        if any((folder / SNAPSHOT_DIR).glob(_SNAPSHOT_FILES)):
            command = resume.format_resume_command(run_id, folder.parent)
            settings.warn(f"Resume the training with: {command}")
        raise
