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

from mlflow_sb3 import algorithm, flavor, normalization, registry, settings
from mlflow_sb3.agent import INFERENCE, Inference
from mlflow_sb3.registry import Version
from mlflow_sb3.serving import ImageInput
from mlflow_sb3.training import Trained

if TYPE_CHECKING:
    from mlflow_sb3.signing import KeyPath

_FOLDER = "agent"
_AGENT = "agent.zip"
_ENVIRONMENT = "environment.json"
_STATISTICS = "vec_normalize.json"
_STEP = "eval/kept_step"


@dataclass(frozen=True)
class TrainingRun:
    """The agent that a run trained."""

    run_id: str
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
        inference: Inference = "onnx",
        image_input: ImageInput = "tensor",
        signing_key: KeyPath | None = None,
    ) -> Version:
        """Log the agent into the training run, as the model of the step it was kept from, and register it."""
        registry.check_keys(signing_key)
        info = flavor.log_model(
            self.model,
            name=registry.model_name(self.env_id, self.algo),
            step=self.step,
            run_id=self.run_id,
            environment=self.description,
            inference=inference,
            image_input=image_input,
        )
        return registry.register(info.model_id, name, alias=alias, tags={INFERENCE: inference}, signing_key=signing_key)


def log(trained: Trained, description: str) -> None:
    """Put what training kept into the active run."""
    with TemporaryDirectory() as folder:
        Path(folder, _AGENT).write_bytes(trained.kept.agent)
        Path(folder, _ENVIRONMENT).write_text(description)
        if trained.kept.statistics is not None:
            Path(folder, _STATISTICS).write_text(json.dumps(trained.kept.statistics))
        mlflow.log_artifacts(folder, _FOLDER)
    mlflow.set_tag(registry.DIGEST, hashlib.sha256(trained.kept.agent).hexdigest())
    mlflow.log_table(trained.table(), "candidates.json")
    mlflow.log_metrics({_STEP: trained.kept.step, registry.SCORE: trained.kept.score})


def load(run_id: str) -> TrainingRun:
    """Read back what ``log`` put into a run. SB3's file is unpickled: the run's digest says that it is the one which ``log`` wrote.

    Raises:
        MlflowException: The run does not exist, or holds no agent, or another one than it trained.
    """
    client = MlflowClient()
    data = client.get_run(run_id).data
    if not client.list_artifacts(run_id, _FOLDER) or _STEP not in data.metrics or registry.DIGEST not in data.tags:
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} trained no agent; give the id of a finished run of the entry point train."
        )
    settings.check_unpickling_allowed(f"reading the agent of run {run_id}")
    algo = data.params["sb3/algo"]
    with TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=_FOLDER, dst_path=folder))
        found, trained = hashlib.sha256((path / _AGENT).read_bytes()).hexdigest(), data.tags[registry.DIGEST]
        if found != trained:
            raise MlflowException.invalid_parameter_value(
                f"{_FOLDER}/{_AGENT} of run {run_id} has the digest {found}, but the run's tag says {trained}: "
                "the file has changed; train again."
            )
        description = (path / _ENVIRONMENT).read_text()
        statistics = json.loads((path / _STATISTICS).read_text()) if (path / _STATISTICS).exists() else None
        model = algorithm.find(algo).load(path / _AGENT, env=_learning_env(description, statistics))
    return TrainingRun(run_id, data.params["sb3/env"], algo, int(data.metrics[_STEP]), description, model)


def _learning_env(description: str, statistics: normalization.Statistics | None) -> VecEnv:
    """One environment as the agent learned in it, which HerReplayBuffer and VecNormalize ask for."""
    env = algorithm.vec_env(description, {})
    return env if statistics is None else normalization.wrap(env, statistics)
