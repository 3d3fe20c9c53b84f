"""Open and end the MLflow run that a call of ``learn`` logs to."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import get_system_info

from mlflow_sb3.algorithms.algorithms import get_algorithm_name
from mlflow_sb3.client import env_vars, retry
from mlflow_sb3.client.retry import CONNECTION_ERRORS
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor.model_hyperparams import read_hyperparams
from mlflow_sb3.runs import state_dir
from mlflow_sb3.tracking.delivery import UndeliveredError
from mlflow_sb3.tracking.run_logger import RunLogger

SYSTEM_FILE = "system.json"
"""Artifact: operating system, versions of Python and packages, and GPU, as SB3 reports them."""
ENVIRONMENT_FILE = "environment.json"
"""Artifact: ``EnvSpec`` JSON of the training environment."""

_logger = logging.getLogger(__name__)
_open_run_ids: set[str] = set()
"""Runs that a ``LearnRun`` of this process logs to. Two of them would share a local folder."""


class LearnRun:
    """MLflow run of one call of ``learn``.

    The active run of the caller is used and stays open. Without one, a run is started here, and
    ended by ``close``. Everything is logged through the journal of a ``RunLogger``, so the training
    does not wait for the tracking server.
    """

    def __init__(
        self,
        run_name: str,
        tags: dict[str, str],
        *,
        run_id: str | None = None,
        becomes_active: bool = False,
    ) -> None:
        """Start the run.

        Args:
            run_name: Name of a run that is started here.
            tags: Tags of the run.
            run_id: Run to continue if there is no active run. By default, a new run.
            becomes_active: Whether a new run becomes the active run of MLflow. ``close`` must then
                be called in every case.

        Raises:
            MlflowException: The tracking server does not answer.
        """
        active = mlflow.active_run()
        self.is_own = active is None
        """Whether the run was started here."""
        self._is_active = self.is_own and becomes_active
        self._known_params: dict[str, str] = {}
        if active is not None:
            self.run_id: str = active.info.run_id
            _check_single_callback(self.run_id)
        elif run_id is not None:
            self.run_id = run_id
            MlflowClient().update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        else:
            self.run_id = _start_run(run_name, tags, becomes_active=becomes_active)
        if active is not None or run_id is not None:
            self._known_params = MlflowClient().get_run(self.run_id).data.params
        self.logger = RunLogger(
            self.run_id, state_dir.get_run_dir(self.run_id), ends_run=self.is_own
        )
        self.logger.__enter__()
        _open_run_ids.add(self.run_id)
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
        """Log the environment as the dataset of the active run. A failure is only a warning."""
        source = CodeDatasetSource({"environment": env_spec_json})
        dataset = MetaDataset(source, name=env_id)  # type: ignore[abstract]  # mlflow 3.17
        try:
            mlflow.log_input(dataset, context="training")
        except CONNECTION_ERRORS as error:
            _logger.warning("The environment was not logged as the dataset of the run: %s", error)

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
        finally:
            _open_run_ids.discard(self.run_id)
            if self._is_active:
                self._end_active_run(error)

    def _end_active_run(self, error: BaseException | None) -> None:
        """End the run for MLflow's functions. The journal has sent its status, or will do so."""
        active = mlflow.active_run()
        if active is not None and active.info.run_id == self.run_id:
            status = RunStatus.FINISHED if error is None else RunStatus.FAILED
            with env_vars.override_env(retry.FAIL_FAST_ENV), suppress(*CONNECTION_ERRORS):
                mlflow.end_run(RunStatus.to_string(status))


def _start_run(run_name: str, tags: dict[str, str], *, becomes_active: bool) -> str:
    """Start a run in the active experiment, and return its id.

    MLflow makes the run the active run of the thread that starts it. If it must not become the
    active run of the caller, another thread starts it.
    """
    start = partial(mlflow.start_run, run_name=run_name, tags=tags or None)
    if becomes_active:
        return str(start().info.run_id)
    with ThreadPoolExecutor(max_workers=1) as executor:
        return str(executor.submit(start).result().info.run_id)


def _check_single_callback(run_id: str) -> None:
    if run_id in _open_run_ids:
        raise MlflowException.invalid_parameter_value(
            f"Another MlflowCallback logs to run {run_id} already. Pass only one MlflowCallback "
            "to learn, and end the with block of another one first."
        )


def describe_training(
    model: BaseAlgorithm, timesteps: int, env_spec_json: str | None
) -> dict[str, Any]:
    """Return the parameters of a training, under the keys of the entry point ``train``.

    Args:
        model: Algorithm that is about to learn.
        timesteps: Environment steps of the algorithm at the end of this call of ``learn``.
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
