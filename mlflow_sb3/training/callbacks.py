"""SB3 callbacks that evaluate checkpoints, take and restore snapshots, and show progress."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from mlflow_sb3.envs import rollout
from mlflow_sb3.flavor import sb3_internals
from mlflow_sb3.runs.signals import StopRequest
from mlflow_sb3.training import learn_state, rng_state, snapshot
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import (
    MAX_CHECKPOINTS,
    RACE_EPISODES,
    EvaluationSettings,
    keep_best,
)
from mlflow_sb3.training.eval_budget import EvaluationBudget
from mlflow_sb3.training.rng_state import RngState
from mlflow_sb3.training.snapshot import SnapshotState
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


class CheckpointCallback(BaseCallback):
    """Evaluate checkpoints during the training, and keep the best checkpoints and the last.

    A checkpoint is taken at the start of a rollout. If the budget does not allow to wait for its
    evaluation, it is taken at a later one.

    Evaluation uses its own environments and seeds, and draws from no random generator of the
    training. The weights are therefore the same with and without this callback. If the evaluator
    has a worker process, training continues during an evaluation.
    """

    __slots__ = ("_evaluator", "_last_time", "_settings")  # outside vars(), which snapshots pickle

    def __init__(
        self, evaluator: CheckpointEvaluator, settings: EvaluationSettings, timesteps: int
    ) -> None:
        """Create the callback.

        Args:
            evaluator: Evaluates the checkpoints.
            settings: When and how checkpoints are evaluated.
            timesteps: Environment steps of the training.
        """
        super().__init__()
        self.checkpoints: list[Checkpoint] = []
        """Evaluated checkpoints that can still be selected."""
        self.steps: list[int] = []
        """Environment steps of all checkpoints but the last."""
        self.race_episodes = settings.race_episodes
        """Fresh episodes of the race. Known after learning."""
        self.budget = EvaluationBudget(settings.budget)
        self._pending: Checkpoint | None = None
        self._evaluator = evaluator
        self._settings = settings
        self._every = settings.get_interval(timesteps) or math.inf
        self._next_step = math.inf
        self._last_time = 0.0

    def _on_training_start(self) -> None:
        self._next_step = self._find_next_step()
        self._last_time = time.monotonic()

    def _on_rollout_start(self) -> None:
        self._count_learning()
        if self._pending is not None and not self._evaluator.is_busy():
            self._finish_pending(self._pending)
        if self.model.num_timesteps >= self._next_step and self._may_evaluate():
            self.steps.append(self.model.num_timesteps)
            self._next_step = self._find_next_step()
            self._start_evaluation()

    def _on_training_end(self) -> None:
        self._count_learning()
        last = self._start_evaluation()
        start = time.monotonic()
        self._log_result(last)
        seconds_per_episode = (time.monotonic() - start) / self._settings.episodes
        self.checkpoints.append(last)
        if self.race_episodes is None:
            self.race_episodes = min(
                RACE_EPISODES,
                self.budget.count_episodes(seconds_per_episode / self._evaluator.n_processes),
            )

    def _on_step(self) -> bool:
        return True

    def _find_next_step(self) -> float:
        """Return the step from which the next checkpoint is due."""
        steps = self._settings.steps
        if steps is None:
            return self.model.num_timesteps + self._every
        return steps[len(self.steps)] if len(self.steps) < len(steps) else math.inf

    def _may_evaluate(self) -> bool:
        """Return whether the budget allows a checkpoint now."""
        must_wait = self._evaluator.n_processes == 1 or self._pending is not None
        return not (self._settings.has_budget and must_wait) or self.budget.allows_wait()

    def _count_learning(self) -> None:
        """Add the time since the last evaluation or rollout to the time of learning."""
        now = time.monotonic()
        self.budget.learn_seconds += now - self._last_time
        self._last_time = now

    @contextmanager
    def _count_wait(self) -> Iterator[None]:
        self._count_learning()
        yield
        now = time.monotonic()
        self.budget.add_wait(now - self._last_time)
        self._last_time = now

    def _start_evaluation(self) -> Checkpoint:
        if self._pending is not None:
            self._finish_pending(self._pending)
        # SB3 might not call dump again before training ends, and the values recorded so far would
        # be lost.
        self.logger.dump(self.model.num_timesteps)
        self._pending = Checkpoint.from_model(self.model)
        self._evaluator.start(self._pending, self._settings.episodes)
        return self._pending

    def _finish_pending(self, checkpoint: Checkpoint) -> None:
        self._log_result(checkpoint)
        # Keep one checkpoint less, because the last checkpoint always enters the selection.
        self.checkpoints = keep_best([*self.checkpoints, checkpoint], MAX_CHECKPOINTS - 1)

    def _log_result(self, checkpoint: Checkpoint) -> None:
        """Wait for the evaluation of a checkpoint, and log its metrics at the checkpoint's step."""
        with self._count_wait():
            episodes = self._evaluator.finish(checkpoint, self._settings.episodes)
        summary = rollout.summarize_returns(episodes)
        metrics: dict[str, Any] = {
            "eval/mean_reward": summary.mean_return,
            "eval/mean_ep_length": summary.mean_length,
        }
        if episodes.success_rate is not None:
            metrics["eval/success_rate"] = episodes.success_rate
        # Logger.dump would log at the current step, which may be after the checkpoint.
        for output in self.logger.output_formats:
            output.write(metrics, dict.fromkeys(metrics, ()), checkpoint.step)
        checkpoint.training_score = summary.mean_return
        self._pending = None


class RestoreCallback(BaseCallback):
    """Restore a resumed training at the start of its first rollout.

    This must be the first callback, so that all others see the restored state.
    """

    def __init__(self, callbacks: Sequence[BaseCallback], state: SnapshotState | None) -> None:
        """Create the callback.

        Args:
            callbacks: Callbacks whose attributes are restored.
            state: The loaded snapshot. None for a new training.
        """
        super().__init__()
        self._callbacks = callbacks
        self._state = state

    def _on_rollout_start(self) -> None:
        if self._state is not None:
            snapshot.restore_training(self.model, self._callbacks, self._state)
            self._state = None

    def _on_step(self) -> bool:
        return True


class SnapshotCallback(BaseCallback):
    """Take snapshots between two rollouts, and stop after a signal.

    Some algorithms dump their metrics only after several rollouts. With them, this callback takes a
    snapshot or stops the training only at the start of the first rollout after a dump, and at the
    end of the training (see ``get_rollouts_per_dump``).

    This must be the last callback, so that a snapshot includes the effects of all others.
    """

    def __init__(
        self,
        callbacks: Sequence[BaseCallback],
        *,
        writer: SnapshotWriter | None,
        stop: StopRequest,
        rng_state: RngState | None,
    ) -> None:
        """Create the callback.

        Args:
            callbacks: Callbacks whose attributes belong to a snapshot.
            writer: Writes the snapshots. None: take no snapshots.
            stop: Records whether a signal requested to stop.
            rng_state: State of the random generators to restore. None for a new training.
        """
        super().__init__()
        self._callbacks = callbacks
        self._writer = writer
        self._stop = stop
        self._rng_state_to_restore = rng_state
        self._rng_state: RngState | None = None
        """State to store in the next snapshot. None: the state when the snapshot is taken."""

    def _on_training_start(self) -> None:
        self._n_rollouts = 0
        self._rollouts_per_dump = learn_state.get_rollouts_per_dump(self.model)
        self._draws_early = sb3_internals.draws_before_rollout(self.model)
        if self._writer is not None:
            self._writer.start(self.model.num_timesteps)
        if self._draws_early:
            # ARS draws random numbers before it calls on_rollout_start. A snapshot therefore stores
            # the state at the start of learning or at the end of the previous rollout.
            self._restore_rng_state()
            self._rng_state = rng_state.get_rng_state()

    def _on_rollout_start(self) -> None:
        self._restore_rng_state()
        if self._n_rollouts % self._rollouts_per_dump:
            return
        if self._writer is not None and (
            self._stop.requested or self._writer.is_due(self.model.num_timesteps)
        ):
            self._writer.take(self.model, self._callbacks, rng_state=self._rng_state)
        self._stop_if_requested()

    def _on_rollout_end(self) -> None:
        self._n_rollouts += 1
        if self._draws_early:
            self._rng_state = rng_state.get_rng_state()

    def _on_training_end(self) -> None:
        if self._writer is not None:
            self._writer.take(self.model, self._callbacks, is_learned=True)
        self._stop_if_requested()

    def _on_step(self) -> bool:
        return True

    def _stop_if_requested(self) -> None:
        if self._writer is not None and self._stop.requested:
            self._writer.wait()  # finish writing: the end of the run uploads this snapshot
        self._stop.raise_if_requested()

    def _restore_rng_state(self) -> None:
        if self._rng_state_to_restore is not None:
            rng_state.set_rng_state(self._rng_state_to_restore)
            self._rng_state_to_restore = None


class TqdmCallback(BaseCallback):
    """Update a progress bar after each step of the environments."""

    def __init__(self, bar: tqdm[NoReturn]) -> None:
        """Create the callback for a progress bar that counts timesteps."""
        super().__init__()
        self._bar = bar

    def _on_step(self) -> bool:
        self._bar.update(self.training_env.num_envs)
        return True
