"""Keep the best weights of a training, and log them as a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo
from requests.exceptions import RequestException
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.flavor import api
from mlflow_sb3.registry import names, versions
from mlflow_sb3.training.checkpoint import Checkpoint

MonitorMode = Literal["max", "min"]

_logger = logging.getLogger(__name__)


@dataclass
class BestCheckpoint:
    """The checkpoint with the best value of a metric."""

    mode: MonitorMode
    checkpoint: Checkpoint | None = None
    value: float = math.nan

    def offer(self, model: BaseAlgorithm, value: float) -> None:
        """Copy the weights of a model if the value is better than all before."""
        is_better = value > self.value if self.mode == "max" else value < self.value
        if is_better or self.checkpoint is None:
            self.checkpoint = Checkpoint.from_model(model)
            self.value = value


@contextmanager
def use_checkpoint(model: BaseAlgorithm, checkpoint: Checkpoint) -> Iterator[None]:
    """Give a model the weights of a checkpoint, and restore its own weights afterwards."""
    if checkpoint.step == model.num_timesteps:
        yield
        return
    own = Checkpoint.from_model(model)
    checkpoint.load_into(model)
    try:
        yield
    finally:
        own.load_into(model)


@dataclass(frozen=True)
class ModelSettings:
    """How the agent of a training is logged as a model."""

    registered_model_name: str | None = None
    """Registered model that gets a new version with the alias ``challenger``."""
    has_signature: bool = True
    has_input_example: bool = True

    def log(
        self, model: BaseAlgorithm, run_id: str, *, step: int, facts: dict[str, str]
    ) -> ModelInfo | None:
        """Log a model to a run, and register it.

        An agent that cannot be exported or logged is a warning, not an error, because the training
        was successful.

        Args:
            model: Algorithm with the weights to log.
            run_id: Run of the training.
            step: Training step of the weights.
            facts: Tags of the registered version.

        Returns:
            The logged model. None if that failed.
        """
        try:
            info = api.log_model(
                model,
                name="model",
                step=step,
                run_id=run_id,
                registered_model_name=self.registered_model_name,
                signature=None if self.has_signature else False,
                input_example=None if self.has_input_example else False,
            )
            if self.registered_model_name is not None:
                number = str(info.registered_model_version)
                _mark_as_challenger(self.registered_model_name, number, facts)
        except (MlflowException, OSError, RequestException) as error:
            _logger.warning("The agent was not logged as a model: %s", error)
            return None
        return info


def _mark_as_challenger(name: str, number: str, facts: dict[str, str]) -> None:
    """Set the alias and the tags of a new version, as the entry point ``log_model`` does."""
    client = RegistryClient()
    for key, value in (facts | {versions.STATE_TAG: versions.CHALLENGER}).items():
        client.set_model_version_tag(name, number, key, value)
    versions.set_alias(name, names.CHALLENGER_ALIAS, int(number))
