"""Train an agent: build the algorithm, learn, and select the best checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from torch.optim import Adam

from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import seeds
from mlflow_sb3.runs.signals import StopRequest
from mlflow_sb3.training import checkpoint_selection
from mlflow_sb3.training.callbacks import CheckpointCallback
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.learn_state import IterationLogger
from mlflow_sb3.training.session import TrainingSession
from mlflow_sb3.training.snapshot import SnapshotState
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training."""

    model: BaseAlgorithm
    """The algorithm, with the weights of the selected checkpoint."""
    best: Checkpoint
    """The selected checkpoint."""
    checkpoints: list[Checkpoint]
    """All checkpoints that entered the selection."""
    last_digest: str
    """Digest of the weights at the end of learning; see ``compute_weights_digest``."""
    best_digest: str
    """Digest of the weights of the selected checkpoint."""
    evaluation: EvaluationSettings
    """The settings that were used.

    Where the budget decided ``steps`` or ``race_episodes``, they have the resulting numbers.
    """
    confidence: float | None
    """How sure the selection is; see ``checkpoint_selection.estimate_confidence``."""

    def describe(self) -> str:
        """Return in a sentence which checkpoint was selected, and with which mean return."""
        episodes = "episode" if len(self.best.returns) == 1 else "episodes"
        text = (
            f"Kept the checkpoint of step {self.best.step} out of {len(self.checkpoints)}: "
            f"mean return {self.best.score:.2f} over {len(self.best.returns)} fresh {episodes}"
        )
        if self.confidence is None:
            return text
        confidence = f"{self.confidence:.0%}"
        return f"{text}. Confidence that no other of the last round is better: {confidence}"

    def plot(self, title: str) -> bytes:
        """Plot the evaluations of the checkpoints, with the selected one marked, as a PNG file."""
        from mlflow_sb3.reports import learning_curve

        points = [
            learning_curve.CurvePoint(
                row.step,
                row.training_score,
                learning_curve.FreshReturns.summarize(row.returns),
                is_kept=row is self.best,
            )
            for row in self.checkpoints
        ]
        return learning_curve.save_png(learning_curve.plot_learning_curve(points, title))

    def to_table(self) -> dict[str, list[Any]]:
        """Return the checkpoints as columns for ``mlflow.log_table``, sorted by step.

        The columns ``fresh_...`` describe the episodes on new seeds, played after learning.
        """
        rows = sorted(self.checkpoints, key=attrgetter("step"))
        return {
            "step": [row.step for row in rows],
            "training_mean_return": [row.training_score for row in rows],
            "fresh_episodes": [len(row.returns) for row in rows],
            "fresh_mean_return": [row.score if row.returns else None for row in rows],
            "fresh_min_return": [min(row.returns, default=None) for row in rows],
            "fresh_max_return": [max(row.returns, default=None) for row in rows],
            "kept": [row is self.best for row in rows],
        }


def train(
    env_spec_json: str,
    algo: str,
    *,
    timesteps: int,
    seed: int = 0,
    hyperparams: dict[str, Any] | None = None,
    base_model: BaseAlgorithm | None = None,
    evaluation: EvaluationSettings | None = None,
    callbacks: Sequence[BaseCallback] = (),
    writers: Sequence[KVWriter] = (),
    snapshot_writer: SnapshotWriter | None = None,
    resume_from: SnapshotState | None = None,
    stop: StopRequest | None = None,
    progress: bool = False,
    torch_threads: int = 1,
) -> TrainingResult:
    """Train an agent and select its best checkpoint.

    Args:
        env_spec_json: The environment, as ``EnvSpec`` JSON.
        algo: Name of the algorithm in lower case, such as ``"dqn"``.
        timesteps: Environment steps.
        seed: Base seed. Learning and the evaluation of checkpoints use independent streams of it.
        hyperparams: See ``builder.build_algorithm``.
        base_model: Algorithm to train further, with its own environments, hyperparameters and
            seed. By default, a new algorithm is built.
        evaluation: How checkpoints are evaluated and selected.
        callbacks: More SB3 callbacks.
        writers: Output formats that receive SB3's training metrics.
        snapshot_writer: Writes snapshots of the training.
        resume_from: Snapshot of this training to continue from.
        stop: Request to stop. It is checked where a snapshot can be taken (see
            ``SnapshotCallback``), at the end of learning, and during the selection.
        progress: Whether to show progress bars on standard error.
        torch_threads: Threads of PyTorch during training. More threads do not make small networks
            faster. Another number of threads changes the last bits of the weights.

    Returns:
        The model with the weights of the best checkpoint, and the checkpoints that it was selected
        from.

    Raises:
        MlflowException: Environment, algorithm and hyperparameters do not fit together.
        Interrupted: ``stop`` was requested. If it was requested during learning, the last snapshot
            has the state at which learning stopped.
    """
    settings = evaluation or EvaluationSettings()
    with _use_torch_threads(torch_threads):
        if resume_from is not None:
            model = resume_from.model
        else:
            model = base_model or builder.build_algorithm(
                algo, env_spec_json, hyperparams or {}, seed=get_learning_seed(seed)
            )
            _use_fused_adam(model)
        model.set_logger(IterationLogger(writers))
        session = TrainingSession(
            model, timesteps, snapshot_writer, resume_from, stop or StopRequest(), progress
        )
        with (
            _complete_last_snapshot(snapshot_writer),
            CheckpointEvaluator.with_worker(model, env_spec_json, seed=seed) as evaluator,
        ):
            checkpoint_callback = CheckpointCallback(evaluator, settings, timesteps)
            session.learn([checkpoint_callback, *callbacks])
            last_digest = compute_weights_digest(model)
            settings = _fill_in(settings, checkpoint_callback)
            checkpoints = checkpoint_callback.checkpoints
            best = session.select(checkpoints, evaluator, settings)
    return TrainingResult(
        model,
        best,
        checkpoints,
        last_digest,
        compute_weights_digest(model),
        settings,
        checkpoint_selection.estimate_confidence(best, checkpoints),
    )


def get_learning_seed(seed: int) -> int:
    """Return the seed of the SB3 algorithm: the first seed of the stream ``learning``."""
    return seeds.generate_episode_seeds(seed, "learning", 1)[0]


def _fill_in(settings: EvaluationSettings, callback: CheckpointCallback) -> EvaluationSettings:
    """Add the numbers that the budget decided, so that a repetition needs no budget."""
    if settings.has_budget:
        settings = replace(settings, steps=callback.steps)
    if settings.selection == "race":
        settings = replace(settings, race_episodes=callback.race_episodes)
    return settings


def compute_weights_digest(model: BaseAlgorithm) -> str:
    """Return the SHA-256 digest of the weights of a policy, as 64 hexadecimal digits.

    It covers the names, dtypes, shapes and bytes of all tensors.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.policy.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _complete_last_snapshot(snapshot_writer: SnapshotWriter | None) -> Iterator[None]:
    """Wait at the end until the last snapshot is complete, so that the run logger can upload it."""
    try:
        yield
    finally:
        if snapshot_writer is not None:
            snapshot_writer.wait()


@contextmanager
def _use_torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _use_fused_adam(model: BaseAlgorithm) -> None:
    """Use PyTorch's fused Adam, unless the hyperparameters set ``fused`` or ``foreach``.

    On a CPU, Adam by default runs about a dozen small operations for each tensor. They take a
    seventh of DQN's training time. The fused version differs only in rounding.
    """
    for name in model.get_parameters():
        optimizer = attrgetter(name)(model)
        if isinstance(optimizer, Adam):
            for group in optimizer.param_groups:
                if group["fused"] is None and group["foreach"] is None:
                    group["fused"] = True
