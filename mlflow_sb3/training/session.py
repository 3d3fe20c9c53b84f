"""Learn and select a checkpoint, with snapshots, a stop request and progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.flavor import sb3_internals
from mlflow_sb3.reports.progress import make_bar
from mlflow_sb3.runs.signals import StopRequest
from mlflow_sb3.training import checkpoint_selection
from mlflow_sb3.training.callbacks import RestoreCallback, SnapshotCallback, TqdmCallback
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.snapshot import SnapshotState
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


@dataclass(frozen=True)
class TrainingSession:
    """A training with a built or restored model. Call ``learn``, then ``select``."""

    model: BaseAlgorithm
    timesteps: int
    snapshot_writer: SnapshotWriter | None
    resume_from: SnapshotState | None
    stop: StopRequest
    progress: bool

    def learn(self, callbacks: list[BaseCallback]) -> None:
        """Run SB3's ``learn`` for the remaining timesteps.

        If the training resumes from a snapshot that was taken after learning, do not call SB3's
        ``learn``. Only restore the first callback, which has the checkpoints to select from.
        """
        state = self.resume_from
        if state is not None and state.is_learned:
            vars(callbacks[0]).update(state.callbacks[0])
            return
        remaining = self.timesteps
        if state is not None:
            remaining = sb3_internals.get_total_timesteps(self.model) - self.model.num_timesteps
        with (
            self._progress_bar(
                "training", "step", total=self.timesteps, initial=self.timesteps - remaining
            ) as bar,
            sb3_internals.use_total_progress(self.model),
            _explain_errors(self.model),
        ):
            self.model.learn(
                remaining,
                callback=self._surround_callbacks(callbacks, bar),
                reset_num_timesteps=self.model.num_timesteps == 0 and state is None,
            )

    def select(
        self,
        checkpoints: list[Checkpoint],
        evaluator: CheckpointEvaluator,
        settings: EvaluationSettings,
    ) -> Checkpoint:
        """Select the best checkpoint."""
        total = checkpoint_selection.count_episodes(len(checkpoints), settings.rounds)
        with self._progress_bar("selecting", "episode", total=total) as bar:

            def on_episode() -> None:
                bar.update()
                self.stop.raise_if_requested()

            return checkpoint_selection.select_checkpoint(
                self.model,
                checkpoints,
                evaluator,
                settings,
                on_episode=on_episode,
                while_waiting=self.stop.raise_if_requested,
            )

    def _surround_callbacks(
        self, callbacks: list[BaseCallback], bar: tqdm[NoReturn]
    ) -> list[BaseCallback]:
        """Put ``RestoreCallback`` first and ``SnapshotCallback`` last."""
        state = self.resume_from
        return [
            RestoreCallback(callbacks, state),
            *callbacks,
            TqdmCallback(bar),
            SnapshotCallback(
                callbacks,
                writer=self.snapshot_writer,
                stop=self.stop,
                rng_state=None if state is None else state.rng_state,
            ),
        ]

    def _progress_bar(
        self, description: str, unit: str, *, total: int, initial: int = 0
    ) -> tqdm[NoReturn]:
        return make_bar(description, unit, total=total, initial=initial, is_shown=self.progress)


@contextmanager
def _explain_errors(model: BaseAlgorithm) -> Iterator[None]:
    """Add the algorithm and the step to an error.

    SB3 checks some hyperparameters only during ``learn``.
    """
    try:
        yield
    except algorithms.TRAINING_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"{type(model).__name__} failed at step {model.num_timesteps}: "
            f"{type(error).__name__}: {error}. Check the hyperparameters and the environment."
        ) from error
