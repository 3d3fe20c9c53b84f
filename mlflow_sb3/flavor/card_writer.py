"""Write ``MODEL_CARD.md`` into the folder of a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.models import Model

from mlflow_sb3.reports.card_facts import CardFacts, CardTraining
from mlflow_sb3.reports.card_usage import REQUEST_FILE, CardUsage
from mlflow_sb3.reports.model_card import LEARNING_CURVE, MODEL_CARD, ModelCard
from mlflow_sb3.runs.git import COMMIT_TAG

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.inference.agent_files import AgentInfo
    from mlflow_sb3.inference.policy_inputs import PolicyInputs

_DIGITS = 3
"""Decimal places of the numbers in the request that the card shows."""


def read_facts(model: BaseAlgorithm) -> CardFacts:
    """Return what an SB3 algorithm itself knows: steps, seed, and hyperparameters."""
    from mlflow_sb3.flavor.model_hyperparams import read_hyperparams

    return CardFacts(
        CardTraining(timesteps=model.num_timesteps or None, seed=model.seed),
        hyperparams=read_hyperparams(model),
    )


def write_card(
    folder: Path, agent_info: AgentInfo, inputs: PolicyInputs, facts: CardFacts, *, model: Model
) -> None:
    """Write the card of a model, and the plot of the learning curve if there is one.

    Args:
        folder: Folder of the model, with all files that MLflow writes.
        agent_info: Content of ``agent.json``.
        inputs: Inputs of the policy.
        facts: Facts about the agent.
        model: MLflow's description of the model.
    """
    if facts.training.run_id is None:
        facts = replace(facts, training=_add_run(facts.training, model))
    if facts.learning_curve is not None:
        (folder / LEARNING_CURVE).write_bytes(facts.learning_curve)
    uri = f"models:/{model.model_id}" if model.model_id else "path/of/this/folder"
    usage = CardUsage(uri, inputs, agent_info.inference, _read_request(folder))
    card = ModelCard(agent_info, inputs, facts, usage)
    (folder / MODEL_CARD).write_text(card.to_markdown(), encoding="utf-8")


def _add_run(training: CardTraining, model: Model) -> CardTraining:
    """Add the run that logs the model, and the commit that MLflow found for its script."""
    run = mlflow.active_run()
    is_active = run is not None and run.info.run_id == model.run_id
    commit = run.data.tags.get(COMMIT_TAG) if run is not None and is_active else None
    return replace(training, run_id=model.run_id, commit=commit)


def _read_request(folder: Path) -> str | None:
    """Return the request of the input example in one line, with rounded numbers."""
    path = folder / REQUEST_FILE
    return json.dumps(_round(json.loads(path.read_text()))) if path.exists() else None


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_round(inner) for inner in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
