"""Plays candidates on the seeds of a training, and part of them in a companion where there can be one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import episode_seeds
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.inference.policy_protocol import Policy
from mlflow_sb3.training import forked_worker, rng_state
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.forked_worker import ForkedWorker, WorkerLostError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationTask:
    """Candidates, and which episodes of the stream ``choice`` each of them is to play."""

    candidates: Sequence[Checkpoint]
    start: int
    count: int


class CheckpointEvaluator:
    """Plays the candidates of one training; what comes out does not depend on where they are played."""

    def __init__(self, model: BaseAlgorithm, description: str, *, seed: int) -> None:
        """Play alone.

        Args:
            model: That learns, and lends its policy when it has.
            description: The environment, as ``EnvSpec`` JSON.
            seed: The episodes are those of its stream ``choice``.
        """
        self._model = model
        self._description = description
        self._seed = seed
        self._companion: ForkedWorker[list[Episodes]] | None = None
        self._begun = False
        with env_spec.make_from_spec(description) as env:
            self._spaces = env.observation_space, env.action_space

    @classmethod
    @contextmanager
    def accompanied(cls, model: BaseAlgorithm, description: str, *, seed: int) -> Iterator[Self]:
        """A player with a companion, if the model is on a CPU and PyTorch on one thread: neither a GPU nor threads can be copied."""
        player = cls(model, description, seed=seed)
        if (
            model.device.type == "cpu"
            and torch.get_num_threads() == 1
            and forked_worker.is_possible()
        ):
            try:
                player._companion = ForkedWorker(player._accompany)
            except OSError as error:
                _logger.warning(
                    "no second process could be made to play in: %s; training waits while agents play.",
                    error,
                )
        try:
            yield player
        finally:
            player._part()

    def begin(self, candidate: Checkpoint, count: int) -> None:
        """Let a candidate play the first ``count`` episodes in the companion, if there is one, while the model goes on learning."""
        if self._companion is not None:
            self._companion.send(EvaluationTask([candidate], 0, count))
            self._begun = True

    def is_playing(self) -> bool:
        """Whether ``finish`` would have to wait."""
        return self._companion is not None and self._begun and not self._companion.is_ready()

    def finish(self, candidate: Checkpoint, count: int) -> Episodes:
        """The episodes of the candidate that was begun; where nobody plays it, it is played now, beside the model."""
        begun, self._begun = self._begun, False
        if self._companion is not None and begun:
            try:
                return self._companion.receive()[0]
            except WorkerLostError as error:
                self._give_up(error)
        before = rng_state.get_rng_state()
        try:
            return self._play(
                candidate.policy(self._model, *self._spaces), EvaluationTask([candidate], 0, count)
            )
        finally:
            rng_state.set_rng_state(before)

    def lend(
        self,
        task: EvaluationTask,
        *,
        on_episode: Callable[[], object],
        meanwhile: Callable[[], object],
    ) -> list[Episodes]:
        """Put the candidates of a task into the model in turn, and every second one into the companion's.

        Args:
            task: What to play.
            on_episode: Called for every episode that is over, the companion's when all of them are.
            meanwhile: Called now and then while there is nothing to do but wait for the companion.
        """
        if self._companion is None or len(task.candidates) == 1:
            return self._lend(task, on_episode)
        ours, theirs = (
            EvaluationTask(task.candidates[first::2], task.start, task.count) for first in (0, 1)
        )
        self._companion.send(theirs)
        played = self._lend(ours, on_episode)
        try:
            answer = self._companion.receive(meanwhile=meanwhile)
        except WorkerLostError as error:
            self._give_up(error)
            answer = self._lend(theirs, on_episode)
        else:
            for _ in range(task.count * len(theirs.candidates)):
                on_episode()
        return [(played, answer)[place % 2][place // 2] for place in range(len(task.candidates))]

    def _accompany(self, task: EvaluationTask) -> list[Episodes]:
        """What the companion does; who only plays needs no memory of what the replay buffer held."""
        vars(self._model).pop("replay_buffer", None)
        return self._lend(task)

    def _give_up(self, error: WorkerLostError) -> None:
        """Go on without the companion."""
        _logger.warning(
            "the second process, which played agents, is lost: %s; training waits while agents play.",
            error,
        )
        self._part()

    def _part(self) -> None:
        if self._companion is not None:
            self._companion.close()
            self._companion = None

    def _lend(
        self, task: EvaluationTask, on_episode: Callable[[], object] = lambda: None
    ) -> list[Episodes]:
        policy = SB3Policy.of(self._model, *self._spaces)
        played = []
        for candidate in task.candidates:
            candidate.put_into(self._model)
            played.append(self._play(policy, task, on_episode))
        return played

    def _play(
        self, policy: Policy, task: EvaluationTask, on_episode: Callable[[], object] = lambda: None
    ) -> Episodes:
        seeds = episode_seeds(self._seed, "choice", task.count, start=task.start)
        return rollout.play_episodes(
            policy,
            partial(env_spec.make_from_spec, self._description),
            seeds,
            on_episode=on_episode,
        )
