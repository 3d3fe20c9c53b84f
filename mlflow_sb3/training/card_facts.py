"""Collect the facts about a training run for the card of its model."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import vec_env_factory
from mlflow_sb3.promotion import confidence
from mlflow_sb3.promotion.gate import compute_worst_returns_mean
from mlflow_sb3.reports.card_facts import CardFacts, CardReturns, CardTraining
from mlflow_sb3.reports.model_card import LEARNING_CURVE
from mlflow_sb3.training import training_record
from mlflow_sb3.training.provenance import INEXACT_TAG
from mlflow_sb3.training.resume_point import RESUMED_AT_TAG
from mlflow_sb3.training.training_record import FreshEpisodes, TrainingRecord

_ALPHA = 0.025
"""Probability that one bound of the interval is wrong. The interval then has 95 % confidence."""
_NO_CHANGES = hashlib.sha256(b"").hexdigest()


def collect_card_facts(run: Run, *, step: int) -> CardFacts:
    """Return the facts that a training run has stored.

    A run of an earlier release may lack ``training.json`` or the plot. The facts then lack what
    only these files have.

    Args:
        run: Training run.
        step: Environment step of the kept checkpoint.
    """
    try:
        record = training_record.read_record(run)
    except MlflowException:
        record = None
    info, tags = run.info, run.data.tags
    training = CardTraining(
        kept_step=step,
        seconds=None if info.end_time is None else (info.end_time - info.start_time) / 1000,
        resumed_at=int(tags[RESUMED_AT_TAG]) if RESUMED_AT_TAG in tags else None,
        run_id=info.run_id,
        inexact=tags.get(INEXACT_TAG),
    )
    picture = _download_learning_curve(run)
    if record is None:
        return CardFacts(training, learning_curve=picture)
    config, facts = record.config, record.facts
    return CardFacts(
        replace(
            training,
            timesteps=config.timesteps,
            seed=config.seed,
            preset=config.preset,
            processor=facts.cpu,
            torch_threads=facts.torch_threads,
            python=facts.python,
            commit=facts.commit,
            has_changes=facts.commit is not None and facts.changes != _NO_CHANGES,
            base_model=config.from_model or None,
        ),
        None if record.episodes is None else summarize_returns(record, record.episodes),
        config.resolved,
        picture,
    )


def summarize_returns(record: TrainingRecord, episodes: FreshEpisodes) -> CardReturns | None:
    """Return the figures of the card, or None without episodes or with returns not finite."""
    returns = np.array(episodes.returns)
    if len(returns) == 0 or not np.isfinite(returns).all():
        return None
    has_seeds = not vec_env_factory.is_vec_env(record.config.description)
    return CardReturns(
        episodes=len(returns),
        mean=float(returns.mean()),
        std=float(returns.std()),
        worst=compute_worst_returns_mean(returns),
        interval=confidence.bound_mean_by_t(returns, _ALPHA) if len(returns) > 1 else None,
        seeds=_format_seeds(record.config.seed, episodes) if has_seeds else None,
        competitors=episodes.competitors,
    )


def _format_seeds(seed: int, episodes: FreshEpisodes) -> str:
    count = len(episodes.returns)
    return f'generate_episode_seeds({seed}, "choice", {count}, start={episodes.first})'


def _download_learning_curve(run: Run) -> bytes | None:
    with TemporaryDirectory() as folder:
        try:
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{run.info.artifact_uri}/{LEARNING_CURVE}", dst_path=folder
            )
        except (MlflowException, OSError):  # a run without a plot
            return None
        return Path(path).read_bytes()
