"""Evaluate checkpoints on the seeds of a training, partly in a worker process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.envs import env_spec, spec_rollout, vec_env_factory
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.inference.policy_protocol import Policy
from mlflow_sb3.training import forked_worker, rng_state
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.forked_worker import ForkedWorker, WorkerLostError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationTask:
    """Checkpoints to evaluate, and the episodes that each of them plays."""

    checkpoints: Sequence[Checkpoint]
    first_episode: int
    """Index of the first episode in ``choice``, the stream of seeds for checkpoint selection."""
    n_episodes: int


class CheckpointEvaluator:
    """Evaluate the checkpoints of one training.

    The returns do not depend on whether this process or a worker process runs the episodes.
    """

    def __init__(self, model: BaseAlgorithm, env_spec_json: str, *, seed: int) -> None:
        """Create an evaluator without a worker process; see ``with_worker``.

        Args:
            model: The algorithm that is trained.
            env_spec_json: The environment, as ``EnvSpec`` JSON.
            seed: Seed of the training. The seeds of the episodes are derived from it, with the
                stream ``choice`` of ``generate_episode_seeds``.
        """
        self._model = model
        self._env_spec_json = env_spec_json
        self._seed = seed
        self._worker: ForkedWorker[list[Episodes]] | None = None
        self._has_pending_task = False
        with env_spec.make_from_spec(env_spec_json) as env:
            self._spaces = env.observation_space, env.action_space

    @classmethod
    @contextmanager
    def with_worker(cls, model: BaseAlgorithm, env_spec_json: str, *, seed: int) -> Iterator[Self]:
        """Create an evaluator, with a worker process if possible.

        There is no worker process if the model is on a GPU, if PyTorch uses several threads, or if
        a function makes the environments, whose simulator may use threads or a GPU. Neither CUDA
        nor threads survive ``fork``. See also ``forked_worker.is_available``.
        """
        evaluator = cls(model, env_spec_json, seed=seed)
        if _can_fork(model, env_spec_json):
            evaluator._start_worker()
        try:
            yield evaluator
        finally:
            evaluator.close_worker()

    @property
    def n_processes(self) -> int:
        """Number of processes that run episodes: 2 with a worker process, else 1."""
        return 1 if self._worker is None else 2

    def start(self, checkpoint: Checkpoint, n_episodes: int) -> None:
        """Start to evaluate a checkpoint in the worker process, while the model continues to learn.

        Without a worker process, ``finish`` runs the episodes.
        """
        if self._worker is not None:
            self._worker.send(EvaluationTask([checkpoint], 0, n_episodes))
            self._has_pending_task = True

    def is_busy(self) -> bool:
        """Return whether ``finish`` would have to wait for the worker process."""
        return self._worker is not None and self._has_pending_task and not self._worker.is_ready()

    def finish(self, checkpoint: Checkpoint, n_episodes: int) -> Episodes:
        """Return the episodes of a checkpoint that was passed to the last ``start``.

        Without a worker process, this process runs the episodes. It uses a copy of the policy and
        restores the random generators.
        """
        is_pending, self._has_pending_task = self._has_pending_task, False
        if self._worker is not None and is_pending:
            try:
                return self._worker.receive()[0]
            except WorkerLostError as error:
                self._drop_worker(error)
        task = EvaluationTask([checkpoint], 0, n_episodes)
        with rng_state.preserve_rng_state():
            return self._run_episodes(checkpoint.build_policy(self._model, *self._spaces), task)

    def evaluate_in_model(
        self,
        task: EvaluationTask,
        *,
        on_episode: Callable[[], object],
        while_waiting: Callable[[], object],
    ) -> list[Episodes]:
        """Evaluate checkpoints by loading them into the model, in turn.

        With a worker process, every second checkpoint is evaluated there. Call this after
        learning, because it overwrites the weights of the model.

        Args:
            task: The checkpoints and their episodes.
            on_episode: Called once for each episode. For the episodes of the worker process, it is
                called after the worker has finished all of them.
            while_waiting: Called twice a second while the worker process finishes.

        Returns:
            The episodes of each checkpoint, in the order of the task.
        """
        if self._worker is None or len(task.checkpoints) == 1:
            return self._evaluate_here(task, on_episode)
        own_task, worker_task = (
            EvaluationTask(task.checkpoints[first::2], task.first_episode, task.n_episodes)
            for first in (0, 1)
        )
        self._worker.send(worker_task)
        own_results = self._evaluate_here(own_task, on_episode)
        worker_results = self._receive(self._worker, worker_task, on_episode, while_waiting)
        return [
            (own_results, worker_results)[index % 2][index // 2]
            for index in range(len(task.checkpoints))
        ]

    def close_worker(self) -> None:
        """End the worker process, if there is one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _start_worker(self) -> None:
        try:
            self._worker = ForkedWorker(self._run_in_worker)
        except OSError as error:
            _logger.warning(
                "Could not start a worker process: %s. Training pauses during evaluations.",
                error,
            )

    def _drop_worker(self, error: WorkerLostError) -> None:
        """Continue without the worker process."""
        _logger.warning(
            "The worker process for evaluations is lost: %s. The main process evaluates instead.",
            error,
        )
        self.close_worker()

    def _receive(
        self,
        worker: ForkedWorker[list[Episodes]],
        task: EvaluationTask,
        on_episode: Callable[[], object],
        while_waiting: Callable[[], object],
    ) -> list[Episodes]:
        """Return the results of the worker process. If the worker is lost, run the task here."""
        try:
            results = worker.receive(while_waiting=while_waiting)
        except WorkerLostError as error:
            self._drop_worker(error)
            return self._evaluate_here(task, on_episode)
        for _ in range(task.n_episodes * len(task.checkpoints)):
            on_episode()
        return results

    def _run_in_worker(self, task: EvaluationTask) -> list[Episodes]:
        vars(self._model).pop("replay_buffer", None)  # free memory that evaluation does not need
        return self._evaluate_here(task)

    def _evaluate_here(
        self, task: EvaluationTask, on_episode: Callable[[], object] = lambda: None
    ) -> list[Episodes]:
        policy = SB3Policy.from_algorithm(self._model, *self._spaces)
        results = []
        for checkpoint in task.checkpoints:
            checkpoint.load_into(self._model)
            results.append(self._run_episodes(policy, task, on_episode))
        return results

    def _run_episodes(
        self, policy: Policy, task: EvaluationTask, on_episode: Callable[[], object] = lambda: None
    ) -> Episodes:
        seeds = generate_episode_seeds(
            self._seed, "choice", task.n_episodes, start=task.first_episode
        )
        return spec_rollout.play_episodes(policy, self._env_spec_json, seeds, on_episode=on_episode)


def _can_fork(model: BaseAlgorithm, env_spec_json: str) -> bool:
    has_threads = torch.get_num_threads() > 1 or vec_env_factory.is_vec_env(env_spec_json)
    return model.device.type == "cpu" and not has_threads and forked_worker.is_available()
