"""One training: builds the algorithm, learns, and keeps the best agent that it passed."""

from __future__ import annotations

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
from torch.optim import Adam
from tqdm import tqdm

from mlflow_sb3 import algorithm, candidates, environment
from mlflow_sb3.candidates import Candidate, Checkpoints


@dataclass(frozen=True)
class Trained:
    """What training leaves: the algorithm with the kept agent's weights, and all that competed."""

    model: BaseAlgorithm
    kept: Candidate
    candidates: list[Candidate]

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
    progress: bool = False,
    torch_threads: int = 1,
) -> Trained:
    """Train an agent and keep the best that training passed.

    Args:
        description: The environment, as ``EnvSpec`` JSON.
        algo: Lower case, such as ``"dqn"``.
        timesteps: Environment steps.
        seed: Gives independent streams to learning and to the choice of the agent.
        hyperparams: See ``algorithm.build``.
        ancestor: Goes on learning in place of an algorithm that is built; it has its environments, its hyperparameters and its seed.
        callbacks: SB3's, called besides ours.
        writers: Receive SB3's training metrics.
        progress: Show progress bars on standard error.
        torch_threads: Threads of PyTorch while training; small networks gain nothing from more, and other counts give
            other weights in the last bits.

    Raises:
        MlflowException: The environment, the algorithm and the hyperparameters do not fit together.
    """
    with _torch_threads(torch_threads):
        model = ancestor or algorithm.build(algo, description, hyperparams or {}, seed=learning_seed(seed))
        _fuse_adam(model)
        model.set_logger(Logger(folder=None, output_formats=list(writers)))
        checkpoints = Checkpoints(description, seed=seed, every=max(1, timesteps // candidates.CHECKPOINTS))
        with tqdm(total=timesteps, desc="training", unit="step", disable=not progress, mininterval=1) as bar:
            _learn(model, timesteps, [checkpoints, _Progress(bar), *callbacks])
        total = candidates.count_episodes(len(checkpoints.kept))
        with tqdm(total=total, desc="choosing", unit="episode", disable=not progress, mininterval=1) as bar:
            kept = candidates.choose(model, checkpoints.kept, description, seed=seed, on_episode=bar.update)
    return Trained(model, kept, checkpoints.kept)


def learning_seed(seed: int) -> int:
    """SB3's seed: the stream ``learning`` of a seed."""
    return environment.seeds(seed, "learning", 1)[0]


def _learn(model: BaseAlgorithm, timesteps: int, callbacks: list[BaseCallback]) -> None:
    """Learn; SB3 notices some wrong hyperparameters only here."""
    try:
        model.learn(timesteps, callback=callbacks, reset_num_timesteps=model.num_timesteps == 0)
    except algorithm.REFUSALS as error:
        name, kind = type(model).__name__, type(error).__name__
        raise MlflowException.invalid_parameter_value(
            f"{name} stopped at step {model.num_timesteps}: {kind}: {error}; check the hyperparameters and the environment."
        ) from error


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
