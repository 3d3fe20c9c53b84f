"""Evaluator plugin of MLflow: ``mlflow.models.evaluate(..., evaluators="mlflow_sb3")``."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models.evaluation import EvaluationArtifact, EvaluationResult, ModelEvaluator
from mlflow.models.evaluation.artifacts import ImageEvaluationArtifact, JsonEvaluationArtifact

from mlflow_sb3.flavor import evaluation_run
from mlflow_sb3.flavor.evaluation_run import EPISODES_JSON, RETURNS_PNG
from mlflow_sb3.lifecycle import agents
from mlflow_sb3.reports import progress

MODEL_TYPE = "rl-agent"
"""Value of ``model_type`` for this evaluator."""
SEED_COLUMN = "seed"
"""Column of the seeds, if the data has several columns."""
METRIC_PREFIX = "metric_prefix"
"""Key of ``evaluator_config``, as in MLflow's evaluators: first part of each metric key."""


class AgentEvaluator(ModelEvaluator):
    """Play one episode for each row of the data, which holds the seeds of the episodes.

    The agent plays in the environment that it was trained in, as in ``mlflow_sb3.evaluate``.
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str, **_: Any) -> bool:
        """Return whether the model type is ``rl-agent``."""
        return model_type == MODEL_TYPE

    def evaluate(
        self,
        *,
        dataset: Any,
        run_id: str,
        evaluator_config: dict[str, Any],
        model: Any = None,
        model_id: str | None = None,
        **_: Any,
    ) -> EvaluationResult:
        """Play the episodes, and log a table and a histogram to the active run.

        MLflow logs the metrics on the run and on the logged model. If ``model`` is a URI with an
        alias, MLflow 3.17 does not know the logged model, so this function logs them.

        Args:
            dataset: ``EvaluationDataset`` with the seeds.
            run_id: Id of the active run.
            evaluator_config: May have the key ``metric_prefix``.
            model: Model of ``mlflow.pyfunc.load_model`` with an agent.
            model_id: Id of the logged model.

        Raises:
            MlflowException: The data holds no seeds, the model is no agent, or the configuration
                has another key.
        """
        prefix = _read_prefix(evaluator_config)
        seeds = _read_seeds(dataset.features_data)
        if model is None:
            raise MlflowException.invalid_parameter_value(
                "There is no model to play with. Pass model='models:/name@champion'."
            )
        agent = agents.find_agent(agents.get_raw_policy(model))
        with progress.make_bar("evaluating", "episode", total=len(seeds)) as bar:
            episodes = agent.play(seeds, on_episode=bar.update)
        metrics = evaluation_run.build_metrics(episodes, prefix)
        if model_id is None:
            evaluation_run.log_metrics(metrics, getattr(model, "model_id", None))
        evaluation_run.log_episodes(episodes, f"Agent: {len(seeds)} episodes", folder=prefix)
        return EvaluationResult(  # type: ignore[no-untyped-call]
            metrics,
            {
                f"{prefix}episodes": _make_artifact(prefix + EPISODES_JSON),
                f"{prefix}returns": _make_artifact(prefix + RETURNS_PNG),
            },
            run_id,
        )


def _make_artifact(path: str) -> EvaluationArtifact:
    is_image = path.endswith(".png")
    artifact = ImageEvaluationArtifact if is_image else JsonEvaluationArtifact
    return artifact(mlflow.get_artifact_uri(path))


def _read_prefix(config: dict[str, Any]) -> str:
    if unknown := set(config) - {METRIC_PREFIX}:
        raise MlflowException.invalid_parameter_value(
            f"evaluator_config has the key {min(unknown)!r}. Use only {METRIC_PREFIX!r}."
        )
    return str(config.get(METRIC_PREFIX) or "")


def _read_seeds(data: Any) -> list[int]:
    """Return the seeds in the features of a dataset.

    Raises:
        MlflowException: The data has several columns and none is named ``seed``, or a value is no
            seed.
    """
    frame = pd.DataFrame(data)
    if SEED_COLUMN in frame:
        frame = frame[[SEED_COLUMN]]
    if frame.shape[1] != 1:
        raise MlflowException.invalid_parameter_value(
            f"data has {frame.shape[1]} columns and none with the name {SEED_COLUMN!r}. "
            "Pass the seeds of the episodes, such as mlflow_sb3.make_episode_seeds(100)."
        )
    values = frame.iloc[:, 0].to_numpy()
    is_integer = np.issubdtype(values.dtype, np.integer)
    if not len(values) or not is_integer or values.min() < 0:
        shown = "no rows" if not len(values) else f"the values {values[:3].tolist()}, …"
        raise MlflowException.invalid_parameter_value(
            f"data has {shown}, but the seeds of episodes are integers from 0. "
            "Pass for example mlflow_sb3.make_episode_seeds(100)."
        )
    return [int(value) for value in values]
