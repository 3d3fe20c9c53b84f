"""Many episodes at once, one seed each, and the summary of their returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_sb3.envs.wrapper_config import Env
from mlflow_sb3.inference import batching
from mlflow_sb3.inference.policy_inputs import LstmState
from mlflow_sb3.inference.policy_protocol import Policy

MAX_ENVS = 64
"""Environments stepped together: more than 64 gain little and cost memory."""


@dataclass(frozen=True)
class Episodes:
    """Episodes in the order of their seeds: arrays of shape ``(n,)``; lengths count environment steps."""

    seeds: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @classmethod
    def none(cls) -> Episodes:
        """No episodes, to add others to."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))

    def __add__(self, more: Episodes) -> Episodes:
        """These episodes, and then the others."""
        return Episodes(
            np.concatenate([self.seeds, more.seeds]),
            np.concatenate([self.returns, more.returns]),
            np.concatenate([self.lengths, more.lengths]),
        )

    def table(self) -> dict[str, list[float]]:
        """Columns ``episode``, ``seed``, ``return`` and ``length``, as ``mlflow.log_table`` takes them."""
        return {
            "episode": list(range(len(self.seeds))),
            "seed": self.seeds.tolist(),
            "return": self.returns.tolist(),
            "length": self.lengths.tolist(),
        }


@dataclass(frozen=True)
class ReturnSummary:
    """Returns and lengths in a few numbers; ``std_return`` divides by n, as SB3's ``evaluate_policy`` does."""

    episodes: int
    mean_return: float
    std_return: float
    min_return: float
    max_return: float
    mean_length: float

    def metrics(self, prefix: str) -> dict[str, float]:
        """The numbers as MLflow metrics under a prefix such as ``evaluation/``."""
        return {f"{prefix}{key}": float(value) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.mean_return:.2f} +/- {self.std_return:.2f}"


def summarize_returns(episodes: Episodes) -> ReturnSummary:
    """Mean, spread and range of the returns of at least one episode."""
    returns = episodes.returns
    return ReturnSummary(
        episodes=len(returns),
        mean_return=float(returns.mean()),
        std_return=float(returns.std()),
        min_return=float(returns.min()),
        max_return=float(returns.max()),
        mean_length=float(episodes.lengths.mean()),
    )


def play_episodes(
    policy: Policy,
    make_env: Callable[[], Env],
    seeds: Sequence[int],
    *,
    n_envs: int = MAX_ENVS,
    on_episode: Callable[[], object] = lambda: None,
) -> Episodes:
    """Play one episode per seed, in lock-step: one call of the policy serves a step of every environment.

    Episode k begins with ``env.reset(seed=seeds[k])``, whichever environment plays it, so that the result does not
    depend on ``n_envs``. An environment that goes on from one episode to the next is reset, never shared.

    Args:
        policy: Picks the actions.
        make_env: Makes one environment; called ``min(n_envs, len(seeds))`` times.
        seeds: One for each episode.
        n_envs: Environments stepped together.
        on_episode: Called after every finished episode, for a progress bar.

    Raises:
        ValueError: There is no environment to play in.
    """
    if n_envs < 1:
        raise ValueError(f"n_envs={n_envs}: at least one environment has to play.")
    returns = np.zeros(len(seeds))
    lengths = np.zeros(len(seeds), dtype=np.int64)
    waiting = iter(enumerate(seeds))
    state: LstmState | None = None
    with ExitStack() as stack:
        envs = [stack.enter_context(make_env()) for _ in range(min(n_envs, len(seeds)))]
        games = [_begin(env, *episode) for env, episode in zip(envs, waiting, strict=False)]
        while games:
            batch = batching.stack_observations([game.observation for game in games])
            starts = np.array([game.length == 0 for game in games])
            actions, state = policy.predict(
                batch,
                state,
                starts,
                action_masks=get_action_masks(policy, [game.env for game in games]),
            )
            over = [
                index
                for index, (game, action) in enumerate(zip(games, actions, strict=True))
                if game.step(action)
            ]
            for index in reversed(over):
                game = games[index]
                returns[game.episode], lengths[game.episode] = game.total, game.length
                on_episode()
                following = [_begin(game.env, *episode) for episode in islice(waiting, 1)]
                games[index : index + 1] = following
                if state is not None and not following:
                    state = tuple(np.delete(part, index, axis=1) for part in state)
    return Episodes(np.array(seeds, dtype=np.int64), returns, lengths)


def get_action_masks(policy: Policy, envs: Sequence[Env]) -> NDArray[np.bool_] | None:
    """What the environments allow now, shape ``(n, choices)``; None for a policy that takes no masks."""
    if not policy.takes_masks:
        return None
    return np.array([env.get_wrapper_attr("action_masks")() for env in envs], dtype=bool)


@dataclass(slots=True, eq=False)
class _Game:
    """An environment in the middle of an episode."""

    env: Env
    episode: int
    observation: Any
    total: float = 0.0
    length: int = 0

    def step(self, action: Any) -> bool:
        """Take one step; true when it ended the episode."""
        self.observation, reward, terminated, truncated, _ = self.env.step(action)
        self.total += float(reward)
        self.length += 1
        return terminated or truncated


def _begin(env: Env, episode: int, seed: int) -> _Game:
    observation, _ = env.reset(seed=seed)
    return _Game(env, episode, observation)
