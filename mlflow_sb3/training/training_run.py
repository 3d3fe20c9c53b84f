"""What a training run holds: the kept agent in its artifacts, and how it was trained in its parameters."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.client import permissions, retry
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.flavor import vec_normalize
from mlflow_sb3.inference import agent_files
from mlflow_sb3.promotion import challengers
from mlflow_sb3.registry import model_version, names, registration, signing, versions
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.training import provenance
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.loop import TrainingResult

if TYPE_CHECKING:
    from mlflow_sb3.flavor.model_writer import InferenceBackend
    from mlflow_sb3.inference.pyfunc import ImageInput
    from mlflow_sb3.registry.signing import KeyPath

_FOLDER = "agent"
_AGENT = "agent.zip"
_ENVIRONMENT = "environment.json"
_STATISTICS = "vec_normalize.json"
_IMAGE_INPUT = "mlflow_sb3.image_input"
_LOGGED_BY = "mlflow_sb3.logged_by"
"""Tag of a model version: the run that logged and registered it."""
_STEP = "eval/kept_step"
_CANDIDATES = "candidates.json"
_TABLES = "mlflow.loggedArtifacts"
"""Tag by which MLflow knows the tables of a run, in the format of ``mlflow.log_table``."""


@dataclass(frozen=True)
class TrainingRun:
    """The agent that a run trained."""

    run_id: str
    experiment_id: str
    env_id: str
    algo: str
    step: int
    description: str
    model: BaseAlgorithm

    def log_model(
        self,
        name: str,
        *,
        alias: str,
        inference: InferenceBackend = "onnx",
        image_input: ImageInput = "tensor",
        signing_key: KeyPath | None = None,
    ) -> Version:
        """Log the agent into the training run, as the model of the step it was kept from, and register it.

        When a run was killed in the middle of this, the next one finishes its version.
        """
        from mlflow_sb3.flavor import api
        from mlflow_sb3.flavor.model_writer import INFERENCE_TAG

        signing.check_keys(signing_key)
        permissions.check_registration(name)
        permissions.check_permission("EDIT", experiment=self.experiment_id)
        tags: dict[str, str] = {INFERENCE_TAG: inference, _IMAGE_INPUT: image_input}
        if (begun := self._begun(name, tags, signed=signing_key is not None)) is not None:
            versions.set_alias(name, alias, begun.number)
            return begun
        info = api.log_model(
            self.model,
            name=names.default_model_name(self.env_id, self.algo),
            step=self.step,
            run_id=self.run_id,
            environment=self.description,
            inference=inference,
            image_input=image_input,
        )
        return registration.register_version(
            info.model_id, name, alias=alias, tags=tags | _by_this_run(), signing_key=signing_key
        )

    def _begun(self, name: str, tags: dict[str, str], *, signed: bool) -> Version | None:
        """The version that a run registered which was killed before it finished; this run finishes it."""
        version = versions.find_version_of_run(name, self.run_id, tags)
        if version is None or version.digest is None or (version.signature is not None) != signed:
            return None
        client, number = RegistryClient(), str(version.number)
        by = client.get_model_version(name, number).tags.get(_LOGGED_BY)
        if by is None or client.get_run(by).info.status == "FINISHED":
            return None
        for key, value in _by_this_run().items():
            client.set_model_version_tag(name, number, key, value)
        return version


def _by_this_run() -> dict[str, str]:
    active = mlflow.active_run()
    return {} if active is None else {_LOGGED_BY: active.info.run_id}


def log(
    trained: TrainingResult,
    recipe: TrainingConfig,
    facts: provenance.TrainingRecord,
    tracker: RunLogger,
) -> None:
    """Say what training kept, and how the agent can be made again.

    Args:
        trained: What training left.
        recipe: By which it went.
        facts: What ``provenance.collect_facts`` said when it began.
        tracker: Of its run.
    """
    agent = trained.kept.agent
    tracker.file(f"{_FOLDER}/{_AGENT}", agent)
    tracker.file(f"{_FOLDER}/{_ENVIRONMENT}", recipe.description)
    if trained.kept.statistics is not None:
        tracker.file(f"{_FOLDER}/{_STATISTICS}", json.dumps(trained.kept.statistics))
    table = trained.table()
    tracker.file(
        _CANDIDATES,
        json.dumps({"columns": list(table), "data": list(zip(*table.values(), strict=True))}),
    )
    tracker.tags(
        {
            model_version.DIGEST_TAG: hashlib.sha256(agent).hexdigest(),
            _TABLES: json.dumps([{"path": _CANDIDATES, "type": "table"}]),
        }
    )
    now = retry.now_ms()
    tracker.points(
        [
            (_STEP, float(trained.kept.step), now, 0),
            (challengers.SCORE_METRIC, trained.kept.score, now, 0),
        ]
    )
    provenance.log_provenance(trained, recipe, facts, tracker)


def load(run_id: str) -> TrainingRun:
    """Read back what ``log`` put into a run. SB3's file is unpickled: the run's digest says that it is the one which ``log`` wrote.

    Raises:
        MlflowException: The run does not exist, or holds no agent, or another one than it trained.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    data = run.data
    if (
        not client.list_artifacts(run_id, _FOLDER)
        or _STEP not in data.metrics
        or model_version.DIGEST_TAG not in data.tags
    ):
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} trained no agent; give the id of a finished run of the entry point train."
        )
    agent_files.check_unpickling_allowed(f"reading the agent of run {run_id}")
    algo = data.params["sb3/algo"]
    with TemporaryDirectory() as folder:
        path = Path(
            mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=_FOLDER, dst_path=folder
            )
        )
        found, trained = (
            hashlib.sha256((path / _AGENT).read_bytes()).hexdigest(),
            data.tags[model_version.DIGEST_TAG],
        )
        if found != trained:
            raise MlflowException.invalid_parameter_value(
                f"{_FOLDER}/{_AGENT} of run {run_id} has the digest {found}, but the run's tag says {trained}: "
                "the file has changed; train again."
            )
        description = (path / _ENVIRONMENT).read_text()
        statistics = (
            json.loads((path / _STATISTICS).read_text()) if (path / _STATISTICS).exists() else None
        )
        model = algorithms.find_algorithm(algo).load(
            path / _AGENT, env=_learning_env(description, statistics)
        )
    return TrainingRun(
        run_id,
        run.info.experiment_id,
        data.params["sb3/env"],
        algo,
        int(data.metrics[_STEP]),
        description,
        model,
    )


def _learning_env(description: str, statistics: vec_normalize.Statistics | None) -> VecEnv:
    """One environment as the agent learned in it, which HerReplayBuffer and VecNormalize ask for."""
    env = algorithms.vec_env(description, {})
    return env if statistics is None else vec_normalize.wrap_vec_env(env, statistics)
