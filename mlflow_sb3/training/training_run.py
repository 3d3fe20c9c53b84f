"""Log a trained agent to its training run, and load it from there to register it."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from mlflow_sb3.algorithms import algorithms, builder
from mlflow_sb3.client import permissions
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.flavor import model_writer, vec_normalize
from mlflow_sb3.flavor.model_writer import INFERENCE_TAG
from mlflow_sb3.inference import agent_files
from mlflow_sb3.promotion import challengers
from mlflow_sb3.registry import model_version, names, registration, signing, versions
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports import version_card
from mlflow_sb3.reports.model_card import LEARNING_CURVE
from mlflow_sb3.reports.run_sections import CHECKPOINTS_TABLE, TABLES_TAG
from mlflow_sb3.tracking import file_trust
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from mlflow_sb3.training import card_facts, provenance, version_tags
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.loop import TrainingResult
from mlflow_sb3.training.training_record import TrainingFacts

if TYPE_CHECKING:
    from mlflow_sb3.flavor.signature import ImageInput
    from mlflow_sb3.inference.agent_files import InferenceBackend
    from mlflow_sb3.registry.signing import KeyPath

_logger = logging.getLogger(__name__)

_AGENT_FOLDER = "agent"
_AGENT_ZIP = "agent.zip"
_ENV_SPEC_JSON = "environment.json"
_STATISTICS_JSON = "vec_normalize.json"
STEP_METRIC = "eval/kept_step"
"""Metric of a training run: step of the selected checkpoint."""
_CONFIDENCE_METRIC = "eval/kept_confidence"
"""Metric of a training run; see ``checkpoint_selection.estimate_confidence``."""
_IMAGE_INPUT_TAG = "mlflow_sb3.image_input"
_LOGGED_BY_TAG = "mlflow.sb3.logged_by"
"""Tag of a model version: id of the last run of ``log_model`` that registered or completed it."""


@dataclass(frozen=True)
class TrainingRun:
    """Training run with its agent."""

    run: Run
    env_id: str
    algo: str
    step: int
    """Step of the selected checkpoint."""
    facts: dict[str, str]
    """Tags of a version that tell people what it is: environment, algorithm, seed, steps, score."""
    env_spec_json: str
    """Environment as ``EnvSpec`` JSON."""
    model: BaseAlgorithm

    @property
    def run_id(self) -> str:
        """Id of the training run."""
        return str(self.run.info.run_id)

    def log_model(
        self,
        name: str,
        *,
        alias: str,
        inference: InferenceBackend = "onnx",
        image_input: ImageInput = "tensor",
        signing_key: KeyPath | None = None,
    ) -> Version:
        """Log the agent as a model of the training run, and register it.

        If an earlier ``log_model`` registered a version but did not finish, use that version: set
        its alias, and tag it with the active run.

        Args:
            name: Name of the registered model.
            alias: Alias that the version gets.
            inference: Backend of the model, ``"onnx"`` or ``"native"``.
            image_input: How the served model receives images.
            signing_key: Private key to sign the version with.

        Raises:
            MlflowException: The key cannot sign, or a permission is missing.
        """
        signing.check_keys(signing_key)
        permissions.check_registration(name)
        permissions.check_permission("EDIT", experiment=self.run.info.experiment_id)
        tags: dict[str, str] = {INFERENCE_TAG: inference, _IMAGE_INPUT_TAG: image_input}
        version = self._find_unfinished_version(name, tags, signing_key)
        if version is not None:
            versions.set_alias(name, alias, version.number)
            version_card.write_card(version)
            return version
        prepared = model_writer.prepare_model(
            self.model,
            self.env_spec_json,
            inference=inference,
            image_input=image_input,
            facts=card_facts.collect_card_facts(self.run, step=self.step),
        )
        info = prepared.log(
            name=names.get_default_model_name(self.env_id, self.algo),
            step=self.step,
            run_id=self.run_id,
        )
        version = registration.register_version(
            info.model_id,
            name,
            alias=alias,
            tags=tags | self.facts | _logged_by_tags() | {versions.STATE_TAG: versions.CHALLENGER},
            signing_key=signing_key,
            machine_key=file_trust.get_machine_key(),
            files=prepared.digests,
        )
        version_card.write_card(version)
        return version

    def _find_unfinished_version(
        self, name: str, tags: dict[str, str], signing_key: KeyPath | None
    ) -> Version | None:
        """Return the version of a ``log_model`` that did not finish, and tag it with this run.

        None if there is no such version. Also None if another machine registered it, or if it was
        signed with another key than ``signing_key``.
        """
        version = versions.find_version_of_run(name, self.run_id, tags)
        if version is None or not registration.is_registered_here(
            version, file_trust.get_machine_key(), signing_key=signing_key
        ):
            return None
        client, number = RegistryClient(), str(version.number)
        logged_by = client.get_model_version(name, number).tags.get(_LOGGED_BY_TAG)
        if logged_by is None or client.get_run(logged_by).info.status == "FINISHED":
            return None
        for key, value in _logged_by_tags().items():
            client.set_model_version_tag(name, number, key, value)
        return version


def log_training_run(
    result: TrainingResult,
    config: TrainingConfig,
    facts: TrainingFacts,
    run_logger: RunLogger,
    *,
    trust: FileTrust | None = None,
) -> None:
    """Log the selected agent, the table of checkpoints, and the provenance of the training.

    Args:
        result: Result of the training.
        config: Configuration of the training.
        facts: Result of ``provenance.collect_facts`` at the start of the training.
        run_logger: Logger of the training run.
        trust: Signs the agent. By default, with the key of this machine.
    """
    best = result.best
    run_logger.log_file(f"{_AGENT_FOLDER}/{_AGENT_ZIP}", best.archive)
    run_logger.log_file(f"{_AGENT_FOLDER}/{_ENV_SPEC_JSON}", config.description)
    if best.statistics is not None:
        run_logger.log_file(f"{_AGENT_FOLDER}/{_STATISTICS_JSON}", json.dumps(best.statistics))
    table = result.to_table()
    rows = list(zip(*table.values(), strict=True))
    run_logger.log_file(CHECKPOINTS_TABLE, json.dumps({"columns": list(table), "data": rows}))
    digest = hashlib.sha256(best.archive).hexdigest()
    run_logger.set_tags(
        {
            model_version.DIGEST_TAG: digest,
            model_version.SIGNATURE_TAG: (trust or FileTrust()).sign(digest),
            MLFLOW_RUN_NOTE: result.describe(),
            TABLES_TAG: json.dumps([{"path": CHECKPOINTS_TABLE, "type": "table"}]),
        }
    )
    metrics = {STEP_METRIC: float(best.step), challengers.SCORE_METRIC: best.score}
    if result.confidence is not None:
        metrics[_CONFIDENCE_METRIC] = result.confidence
    now = now_ms()
    run_logger.log_metrics([MetricPoint(key, value, now, 0) for key, value in metrics.items()])
    _log_learning_curve(result, config, run_logger)
    config = config.with_evaluation(result.evaluation)
    provenance.log_provenance(result, config, facts, run_logger)


def _log_learning_curve(
    result: TrainingResult, config: TrainingConfig, run_logger: RunLogger
) -> None:
    """Log the picture. A failure is only a warning, because the agent matters more."""
    try:
        picture = result.plot(f"{config.env}, {config.algo}, seed {config.seed}")
    except Exception as error:  # noqa: BLE001 each font and backend has its own errors
        _logger.warning("The learning curve was not drawn: %s: %s", type(error).__name__, error)
        return
    run_logger.log_file(LEARNING_CURVE, picture)


def load_training_run(run_id: str, *, trust: FileTrust | None = None) -> TrainingRun:
    """Load the agent that ``log_training_run`` logged.

    This compares the digest of SB3's file with the tag of the run, and then unpickles the file.

    Args:
        run_id: Id of the training run.
        trust: Keys that may have signed the agent. By default, the key of this machine.

    Raises:
        MlflowException: The run does not exist, has no agent, its agent has changed, or no trusted
            key signed its agent.
    """
    run = MlflowClient().get_run(run_id)
    agent_uri = f"{run.info.artifact_uri}/{_AGENT_FOLDER}"
    if not _has_agent(run, agent_uri):
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} has no trained agent. "
            "Pass the id of a finished run of the entry point train."
        )
    is_trusted = (trust or FileTrust()).is_agent_trusted(run)
    agent_files.check_unpickling_allowed(
        f"Loading the agent of run {run_id}", is_trusted=is_trusted
    )
    params = run.data.params
    with TemporaryDirectory() as folder:
        # The URI of the store takes fewer requests than the id of the run.
        path = mlflow.artifacts.download_artifacts(artifact_uri=agent_uri, dst_path=folder)
        _check_digest(run, Path(path))
        env_spec_json = Path(path, _ENV_SPEC_JSON).read_text()
        model = algorithms.get_algorithm_class(params["sb3/algo"]).load(
            Path(path, _AGENT_ZIP), env=_build_learning_env(Path(path), env_spec_json)
        )
    return TrainingRun(
        run=run,
        env_id=params["sb3/env"],
        algo=params["sb3/algo"],
        step=int(run.data.metrics[STEP_METRIC]),
        facts=version_tags.describe_version(params, run.data.metrics.get(challengers.SCORE_METRIC)),
        env_spec_json=env_spec_json,
        model=model,
    )


def _logged_by_tags() -> dict[str, str]:
    active_run = mlflow.active_run()
    return {} if active_run is None else {_LOGGED_BY_TAG: active_run.info.run_id}


def _has_agent(run: Run, agent_uri: str) -> bool:
    return (
        bool(mlflow.artifacts.list_artifacts(artifact_uri=agent_uri))
        and STEP_METRIC in run.data.metrics
        and model_version.DIGEST_TAG in run.data.tags
    )


def _check_digest(run: Run, folder: Path) -> None:
    digest = hashlib.sha256((folder / _AGENT_ZIP).read_bytes()).hexdigest()
    expected = run.data.tags[model_version.DIGEST_TAG]
    if digest != expected:
        raise MlflowException.invalid_parameter_value(
            f"{_AGENT_FOLDER}/{_AGENT_ZIP} of run {run.info.run_id} changed after training "
            f"(digest {digest}, expected {expected}). Train again."
        )


def _build_learning_env(folder: Path, env_spec_json: str) -> VecEnv:
    """Build one environment as in the training. HerReplayBuffer and VecNormalize need it."""
    vec_env = builder.build_vec_env(env_spec_json, {})
    path = folder / _STATISTICS_JSON
    if not path.exists():
        return vec_env
    return vec_normalize.wrap_vec_env(vec_env, json.loads(path.read_text()))
