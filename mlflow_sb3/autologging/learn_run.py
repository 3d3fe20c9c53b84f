"""Open and end the MLflow run that a call of ``learn`` logs to."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import suppress
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import RunStatus
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import get_system_info

from mlflow_sb3.algorithms.model_hyperparams import get_algorithm_name, read_hyperparams
from mlflow_sb3.client import env_vars, retry
from mlflow_sb3.client.retry import CONNECTION_ERRORS
from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs import state_dir
from mlflow_sb3.tracking.delivery import UndeliveredError
from mlflow_sb3.tracking.run_logger import RunLogger

SYSTEM_FILE = "system.json"
"""Artifact: operating system, versions of Python and packages, and GPU, as SB3 reports them."""
ENVIRONMENT_FILE = "environment.json"
"""Artifact: ``EnvSpec`` JSON of the training environment."""

_logger = logging.getLogger(__name__)


class LearnRun:
    """MLflow run of one call of ``learn``.

    An active run is used and stays open. Without one, a run is started here, and ended by
    ``close``. Everything is logged through the journal of a ``RunLogger``, so the training does
    not wait for the tracking server.
    """

    def __init__(self, run_name: str, tags: dict[str, str], *, run_id: str | None = None) -> None:
        """Start the run.

        Args:
            run_name: Name of a run that is started here.
            tags: Tags of the run.
            run_id: Run to continue if there is no active run. By default, a new run.

        Raises:
            MlflowException: The tracking server does not answer.
        """
        active = mlflow.active_run()
        self.is_own = active is None
        """Whether the run was started here."""
        run = active or mlflow.start_run(
            run_id, run_name=None if run_id else run_name, tags=tags or None
        )
        self.run_id: str = run.info.run_id
        self._known_params: dict[str, str] = {}
        try:
            folder = state_dir.get_run_dir(self.run_id)
            self.logger = RunLogger(self.run_id, folder, ends_run=self.is_own)
            self.logger.__enter__()
        except BaseException:
            if self.is_own:
                mlflow.end_run(RunStatus.to_string(RunStatus.FAILED))
            raise
        if active is not None or run_id is not None:
            self._known_params = MlflowClient().get_run(self.run_id).data.params
            if active is not None and tags:
                self.logger.set_tags(tags)

    def log_setup(self, params: dict[str, Any], env_spec_json: str | None) -> None:
        """Log parameters and system information.

        MLflow does not change a parameter. If ``learn`` is called again in the same run, its
        parameters keep the values of the first call.

        Args:
            params: Parameters.
            env_spec_json: Environment as ``EnvSpec`` JSON. None if it has none.
        """
        self.logger.log_params(
            {key: value for key, value in params.items() if key not in self._known_params}
        )
        system, _ = get_system_info(print_info=False)
        self.logger.log_file(SYSTEM_FILE, json.dumps(system, indent=2))
        if env_spec_json is not None:
            self.logger.log_file(ENVIRONMENT_FILE, env_spec_json)

    def log_environment_as_dataset(self, env_id: str, env_spec_json: str) -> None:
        """Log the environment as the dataset of the run, so that MLflow lists runs by it."""
        source = CodeDatasetSource({"environment": env_spec_json})
        dataset = MetaDataset(source, name=env_id)  # type: ignore[abstract]  # mlflow 3.17
        mlflow.log_input(dataset, context="training")

    def close(self, error: BaseException | None) -> None:
        """Deliver everything, and end the run if it was started here.

        If the server does not answer, the rest stays on disk, and a warning has the command that
        delivers it. A training that has ended well does not fail for that reason.

        Args:
            error: Exception that ended the training. The run is then FAILED.
        """
        try:
            self.logger.__exit__(None if error is None else type(error), error, None)
        except UndeliveredError as undelivered:
            _logger.warning(undelivered.message)
        else:
            if error is not None and not self.logger.has_pending_entries():
                shutil.rmtree(self.logger.folder, ignore_errors=True)
        if self.is_own:
            status = RunStatus.FINISHED if error is None else RunStatus.FAILED
            # The journal has the status too, so nothing is lost if the server does not answer.
            with env_vars.override_env(retry.FAIL_FAST_ENV), suppress(*CONNECTION_ERRORS):
                mlflow.end_run(RunStatus.to_string(status))


def describe_training(
    model: BaseAlgorithm, timesteps: int, env_spec_json: str | None
) -> dict[str, Any]:
    """Return the parameters of a training, under the keys of the entry point ``train``.

    Args:
        model: Algorithm that is about to learn.
        timesteps: Environment steps of this call of ``learn``.
        env_spec_json: Environment as ``EnvSpec`` JSON. None if it has none.
    """
    params: dict[str, Any] = {
        "env": get_env_id(env_spec_json),
        "algo": get_algorithm_name(type(model)),
        "timesteps": timesteps,
        "seed": model.seed,
    }
    if env_spec_json is not None:
        params["env_kwargs"] = json.dumps(json.loads(env_spec_json)["kwargs"])
        params["wrappers"] = json.dumps(env_spec.list_wrappers(env_spec_json))
    values = params | read_hyperparams(model)
    return {f"sb3/{key}": value for key, value in values.items() if value is not None}


def get_env_id(env_spec_json: str | None) -> str:
    """Return the id of an ``EnvSpec`` JSON, or ``"unregistered"``."""
    return "unregistered" if env_spec_json is None else str(json.loads(env_spec_json)["id"])
