"""One training: builds the algorithm, learns, and keeps the best agent that it passed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NoReturn

import torch
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch.optim import Adam
from tqdm import tqdm

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import seeds
from mlflow_sb3.runs.signals import Stop
from mlflow_sb3.training import checkpoint_selection, rng_state, snapshot
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import CheckpointCallback
from mlflow_sb3.training.snapshot import SnapshotState
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves: the algorithm with the kept agent's weights, and all that competed."""

    model: BaseAlgorithm
    kept: Checkpoint
    candidates: list[Checkpoint]
    last_digest: str
    """Of the weights that training ended with."""
    digest: str
    """Of the weights of the kept agent; see ``weights_digest``."""

    def table(self) -> dict[str, list[Any]]:
        """The candidates as columns, in the order of training, as ``mlflow.log_table`` takes them."""
        rows = sorted(self.candidates, key=lambda candidate: candidate.step)
        return {
            "step": [row.step for row in rows],
            "training_mean_return": [row.training_score for row in rows],
            "fresh_episodes": [len(row.returns) for row in rows],
            "fresh_mean_return": [row.score for row in rows],
            "fresh_min_return": [min(row.returns) for row in rows],
            "kept": [row is self.kept for row in rows],
        }


def train(
    description: str,
    algo: str,
    *,
    timesteps: int,
    seed: int = 0,
    hyperparams: dict[str, Any] | None = None,
    ancestor: BaseAlgorithm | None = None,
    callbacks: Sequence[BaseCallback] = (),
    writers: Sequence[KVWriter] = (),
    shelf: SnapshotWriter | None = None,
    resumed: SnapshotState | None = None,
    stop: Stop | None = None,
    progress: bool = False,
    torch_threads: int = 1,
) -> TrainingResult:
    """Train an agent and keep the best that training passed.

    Args:
        description: The environment, as ``EnvSpec`` JSON.
        algo: Lower case, such as ``"dqn"``.
        timesteps: Environment steps.
        seed: Gives independent streams to learning and to the choice of the agent.
        hyperparams: See ``algorithms.build``.
        ancestor: Goes on learning in place of an algorithm that is built; it has its environments, its hyperparameters and its seed.
        callbacks: SB3's, called besides ours.
        writers: Receive SB3's training metrics.
        shelf: Takes snapshots of the training.
        resumed: A snapshot of this very training, to go on from in place of an algorithm that is built.
        stop: Asked between rollouts, and between the episodes of the choice, whether to stop.
        progress: Show progress bars on standard error.
        torch_threads: Threads of PyTorch while training; small networks gain nothing from more, and other counts give
            other weights in the last bits.

    Raises:
        MlflowException: The environment, the algorithm and the hyperparameters do not fit together.
        Interrupted: ``stop`` said so; the shelf has a snapshot of that moment.
    """
    stop = stop or Stop()
    with _torch_threads(torch_threads):
        if resumed is None:
            model = ancestor or algorithms.build(
                algo, description, hyperparams or {}, seed=learning_seed(seed)
            )
            _fuse_adam(model)
        else:
            model = resumed["model"]
        model.set_logger(_Logger(writers))
        with (
            _finishing(shelf),
            CheckpointEvaluator.accompanied(model, description, seed=seed) as player,
        ):
            checkpoints = CheckpointCallback(
                player, every=max(1, timesteps // checkpoint_selection.CHECKPOINTS)
            )
            if resumed is not None and resumed["learned"]:
                vars(checkpoints).update(resumed["callbacks"][0])
            else:
                _learn(
                    model,
                    timesteps,
                    [checkpoints, *callbacks],
                    shelf=shelf,
                    resumed=resumed,
                    stop=stop,
                    progress=progress,
                )
            last_digest = weights_digest(model)
            kept = _choose(model, checkpoints.kept, player, stop=stop, progress=progress)
    return TrainingResult(model, kept, checkpoints.kept, last_digest, weights_digest(model))


def learning_seed(seed: int) -> int:
    """SB3's seed: the stream ``learning`` of a seed."""
    return seeds.episode_seeds(seed, "learning", 1)[0]


def weights_digest(model: BaseAlgorithm) -> str:
    """SHA-256, as 64 hexadecimal digits, over the names, dtypes, shapes and bytes of the weights of a policy."""
    digest = hashlib.sha256()
    for name, value in sorted(model.policy.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _learn(
    model: BaseAlgorithm,
    timesteps: int,
    callbacks: list[BaseCallback],
    *,
    shelf: SnapshotWriter | None,
    resumed: SnapshotState | None,
    stop: Stop,
    progress: bool,
) -> None:
    """Learn what is left; SB3 notices some wrong hyperparameters only here."""
    left = timesteps if resumed is None else model._total_timesteps - model.num_timesteps
    goes_on = model.num_timesteps > 0 or resumed is not None
    with tqdm(
        total=timesteps,
        initial=timesteps - left,
        desc="training",
        unit="step",
        disable=not progress,
        mininterval=1,
    ) as bar:
        before, after = _Beginning(callbacks, resumed), _Boundary(callbacks, shelf, stop, resumed)
        try:
            with _progress_by_the_whole(model):
                model.learn(
                    left,
                    callback=[before, *callbacks, _Progress(bar), after],
                    reset_num_timesteps=not goes_on,
                )
        except algorithms.TRAINING_ERRORS as error:
            name, kind = type(model).__name__, type(error).__name__
            raise MlflowException.invalid_parameter_value(
                f"{name} stopped at step {model.num_timesteps}: {kind}: {error}; check the hyperparameters and the environment."
            ) from error


@contextmanager
def _finishing(shelf: SnapshotWriter | None) -> Iterator[None]:
    """Wait for the last snapshot in the end, however it ends: who tracks the run uploads it then."""
    try:
        yield
    finally:
        if shelf is not None:
            shelf.wait()


def _choose(
    model: BaseAlgorithm,
    kept: list[Checkpoint],
    player: CheckpointEvaluator,
    *,
    stop: Stop,
    progress: bool,
) -> Checkpoint:
    total = checkpoint_selection.count_episodes(len(kept))
    with tqdm(
        total=total, desc="choosing", unit="episode", disable=not progress, mininterval=1
    ) as bar:

        def on_episode() -> None:
            bar.update()
            stop.obey()

        return checkpoint_selection.choose(
            model, kept, player, on_episode=on_episode, meanwhile=stop.obey
        )


@contextmanager
def _progress_by_the_whole(model: BaseAlgorithm) -> Iterator[None]:
    """Let ARS of sb3-contrib 2.9 see its progress by all steps, as the other algorithms do, not by those of this ``learn`` alone."""
    cls, name = type(model), "_update_current_progress_remaining"
    if not rng_state.samples_before_rollouts(model):
        yield
        return
    before = getattr(cls, name)
    setattr(cls, name, lambda self, done, _: before(self, done, self._total_timesteps))
    try:
        yield
    finally:
        delattr(cls, name)


def _fuse_adam(model: BaseAlgorithm) -> None:
    """Let Adam update all weights of a network in one operation, unless the hyperparameters say how it is to work.

    The same algorithm but for rounding; PyTorch's own choice on a CPU is a dozen small operations for every tensor, a
    seventh of the time of DQN.
    """
    for name in model.get_parameters():
        optimizer = attrgetter(name)(model)
        if isinstance(optimizer, Adam):
            for group in optimizer.param_groups:
                if group["fused"] is None and group["foreach"] is None:
                    group["fused"] = True


def _iterations_between_dumps(model: BaseAlgorithm) -> int:
    """On-policy algorithms count the iterations between two dumps of metrics in a variable of ``learn``: A2C has 100 of them.

    A ``learn`` that goes on has to begin with such a count of 0.
    """
    if not isinstance(model, OnPolicyAlgorithm):
        return 1
    return int(inspect.signature(type(model).learn).parameters["log_interval"].default)


class _Logger(Logger):
    """Counts iterations on, which a resumed ``learn`` counts from 1."""

    def __init__(self, writers: Sequence[KVWriter]) -> None:
        super().__init__(folder=None, output_formats=list(writers))
        self.iterations = 0
        self._before = 0

    def go_on(self, iterations: int) -> None:
        """So many were counted before."""
        self._before = self.iterations = iterations

    def record(self, key: str, value: Any, exclude: str | tuple[str, ...] | None = None) -> None:
        """As SB3 records, but for the iterations."""
        if key == snapshot.ITERATIONS:
            value = self.iterations = self._before + value
        super().record(key, value, exclude)


class _Beginning(BaseCallback):
    """The first callback: before the others act on the first rollout, a resumed training is as it was."""

    def __init__(self, others: Sequence[BaseCallback], resumed: SnapshotState | None) -> None:
        super().__init__()
        self._others = others
        self._resumed = resumed

    def _on_rollout_start(self) -> None:
        if self._resumed is not None:
            snapshot.restore_learning_state(self.model, self._others, self._resumed)
            self._resumed = None

    def _on_step(self) -> bool:
        return True


class _Boundary(BaseCallback):
    """The last callback: when the others have acted between two rollouts, takes snapshots, and stops."""

    def __init__(
        self,
        others: Sequence[BaseCallback],
        shelf: SnapshotWriter | None,
        stop: Stop,
        resumed: SnapshotState | None,
    ) -> None:
        super().__init__()
        self._others = others
        self._shelf = shelf
        self._stop = stop
        self._generators = None if resumed is None else resumed["generators"]
        self._early: SnapshotState | None = None

    def _on_training_start(self) -> None:
        self._rollouts, self._interval = 0, _iterations_between_dumps(self.model)
        self._samples_early = rng_state.samples_before_rollouts(self.model)
        if self._shelf is not None:
            self._shelf.begin(self.model.num_timesteps)
        if self._samples_early:
            self._set_generators()
            self._early = rng_state.get_rng_state()

    def _on_rollout_start(self) -> None:
        self._set_generators()
        if self._rollouts % self._interval:
            return
        if self._shelf is not None and (
            self._stop.requested or self._shelf.is_due(self.model.num_timesteps)
        ):
            self._shelf.take(self.model, self._others, early=self._early)
        self._obey()

    def _on_rollout_end(self) -> None:
        self._rollouts += 1
        if self._samples_early:
            self._early = rng_state.get_rng_state()

    def _on_training_end(self) -> None:
        if self._shelf is not None:
            self._shelf.take(self.model, self._others, learned=True)
        self._obey()

    def _on_step(self) -> bool:
        return True

    def _obey(self) -> None:
        if self._shelf is not None and self._stop.requested:
            self._shelf.wait()  # so that who ends the run finds the snapshot
        self._stop.obey()

    def _set_generators(self) -> None:
        if self._generators is not None:
            rng_state.set_rng_state(self._generators)
            self._generators = None


class _Progress(BaseCallback):
    def __init__(self, bar: tqdm[NoReturn]) -> None:
        super().__init__()
        self._bar = bar

    def _on_step(self) -> bool:
        self._bar.update(self.training_env.num_envs)
        return True


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
