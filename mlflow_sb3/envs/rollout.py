"""Play episodes in several environments at once, and summarize their returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_sb3.envs import Env
from mlflow_sb3.inference import batching
from mlflow_sb3.inference.policy_inputs import LstmState
from mlflow_sb3.inference.policy_protocol import Policy

MAX_ENVS = 64
"""Default maximum number of environments that are stepped together.

More environments are hardly faster and need more memory.
"""


@dataclass(frozen=True)
class Episodes:
    """Results of episodes, in the order of their seeds.

    Attributes:
        seeds: Seeds of the episodes, shape ``(n,)``.
        returns: Sums of rewards, shape ``(n,)``.
        lengths: Numbers of environment steps, shape ``(n,)``.
        successes: Values of ``info["is_success"]`` at the ends of the episodes, shape ``(n,)``.
            None if the environment does not report them.
    """

    seeds: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    successes: NDArray[np.bool_] | None = None

    @classmethod
    def empty(cls) -> Episodes:
        """Return the results of no episodes."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_))

    def __add__(self, other: Episodes) -> Episodes:
        """Return these episodes followed by the episodes of ``other``."""
        return Episodes(
            np.concatenate([self.seeds, other.seeds]),
            np.concatenate([self.returns, other.returns]),
            np.concatenate([self.lengths, other.lengths]),
            None
            if self.successes is None or other.successes is None
            else np.concatenate([self.successes, other.successes]),
        )

    def to_table(self) -> dict[str, list[float]]:
        """Return the columns for ``mlflow.log_table``.

        They are episode, seed, return and length. If the environment reports success, the column
        success follows.
        """
        table: dict[str, list[float]] = {
            "episode": list(range(len(self.seeds))),
            "seed": self.seeds.tolist(),
            "return": self.returns.tolist(),
            "length": self.lengths.tolist(),
        }
        return table if self.successes is None else table | {"success": self.successes.tolist()}

    @property
    def success_rate(self) -> float | None:
        """Fraction of successful episodes. None if the environment does not report success."""
        return None if self.successes is None else float(self.successes.mean())


@dataclass(frozen=True)
class ReturnSummary:
    """Mean, spread and range of returns, and the mean length in environment steps.

    ``std_return`` divides by n, like SB3's ``evaluate_policy``.
    """

    episodes: int
    mean_return: float
    std_return: float
    min_return: float
    max_return: float
    mean_length: float

    def to_metrics(self, prefix: str) -> dict[str, float]:
        """Return the values as MLflow metrics.

        Args:
            prefix: First part of each metric key, such as ``"evaluation/"``.
        """
        return {f"{prefix}{key}": float(value) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.mean_return:.2f} +/- {self.std_return:.2f}"


def summarize_returns(episodes: Episodes) -> ReturnSummary:
    """Summarize the returns of at least one episode."""
    returns = episodes.returns
    return ReturnSummary(
        episodes=len(returns),
        mean_return=float(returns.mean()),
        std_return=float(returns.std()),
        min_return=float(returns.min()),
        max_return=float(returns.max()),
        mean_length=float(episodes.lengths.mean()),
    )


def describe_episodes(episodes: Episodes) -> str:
    """Return the range, the median and the mean of the returns, and the success rate, as lines."""
    lowest, median, highest = np.quantile(episodes.returns, [0.0, 0.5, 1.0])
    lines = [f"Returns: min {lowest:.2f}, median {median:.2f}, max {highest:.2f}"]
    if episodes.success_rate is not None:
        lines.append(f"Success rate: {episodes.success_rate:.2f}")
    return "\n".join([*lines, f"Mean reward: {summarize_returns(episodes)}"])


def play_episodes(
    policy: Policy,
    make_env: Callable[[], Env],
    seeds: Sequence[int],
    *,
    n_envs: int = MAX_ENVS,
    on_episode: Callable[[], object] = lambda: None,
) -> Episodes:
    """Play one episode for each seed.

    The environments are stepped together: one call of the policy returns the actions for all of
    them. Episode ``k`` starts with ``env.reset(seed=seeds[k])`` in any of the environments.
    With a deterministic policy, the result therefore does not depend on ``n_envs``, unless an
    environment keeps a state that ``reset`` does not clear.

    Args:
        policy: Policy that chooses the actions.
        make_env: Makes one environment. Called ``min(n_envs, len(seeds))`` times.
        seeds: Seeds of the episodes.
        n_envs: Maximum number of environments.
        on_episode: Called at the end of each episode, for example to update a progress bar.

    Raises:
        ValueError: ``n_envs`` is less than 1.
    """
    if n_envs < 1:
        raise ValueError(f"n_envs={n_envs} is too small. Use at least one environment.")
    returns = np.zeros(len(seeds))
    lengths = np.zeros(len(seeds), dtype=np.int64)
    successes: list[Any] = [None] * len(seeds)
    remaining = iter(enumerate(seeds))
    state: LstmState | None = None
    with ExitStack() as stack:
        envs = [stack.enter_context(make_env()) for _ in range(min(n_envs, len(seeds)))]
        running = [_start_episode(env, *next(remaining)) for env in envs]
        while running:
            actions, state = _predict(policy, running, state)
            finished = [
                index
                for index, (episode, action) in enumerate(zip(running, actions, strict=True))
                if episode.step(action)
            ]
            # Backwards, because the removal of an episode changes the indices after it.
            for index in reversed(finished):
                episode = running[index]
                returns[episode.number] = episode.total_reward
                lengths[episode.number] = episode.length
                successes[episode.number] = episode.is_success
                on_episode()
                following = next(remaining, None)
                if following is not None:
                    running[index] = _start_episode(episode.env, *following)
                else:
                    del running[index]
                    state = _remove_env(state, index)
    has_successes = None not in successes
    return Episodes(
        np.array(seeds, dtype=np.int64),
        returns,
        lengths,
        np.array(successes, dtype=np.bool_) if has_successes else None,
    )


def get_action_masks(policy: Policy, envs: Sequence[Env]) -> NDArray[np.bool_] | None:
    """Return the action masks of the environments, or None if the policy needs none.

    Returns:
        Booleans of shape ``(n, choices)``, true for a valid action.
    """
    if not policy.has_action_masks:
        return None
    return np.array([env.get_wrapper_attr("action_masks")() for env in envs], dtype=bool)


@dataclass(slots=True, eq=False)
class _RunningEpisode:
    """An episode that has not ended yet.

    Attributes:
        env: Environment that the episode is played in.
        number: Index of the episode's seed.
        observation: Last observation.
        total_reward: Sum of the rewards so far.
        length: Number of environment steps so far.
        is_success: Last value of ``info["is_success"]``, or None.
    """

    env: Env
    number: int
    observation: Any
    total_reward: float = 0.0
    length: int = 0
    is_success: Any = None

    def step(self, action: Any) -> bool:
        """Take one step, and return whether it ended the episode."""
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        self.total_reward += float(reward)
        self.length += 1
        self.is_success = info.get("is_success")
        return terminated or truncated


def _start_episode(env: Env, number: int, seed: int) -> _RunningEpisode:
    observation, _ = env.reset(seed=seed)
    return _RunningEpisode(env, number, observation)


def _predict(
    policy: Policy, running: Sequence[_RunningEpisode], state: LstmState | None
) -> tuple[NDArray[Any], LstmState | None]:
    """Return the actions for all running episodes, and the next LSTM state."""
    return policy.predict(
        batching.stack_observations([episode.observation for episode in running]),
        state,
        np.array([episode.length == 0 for episode in running]),
        action_masks=get_action_masks(policy, [episode.env for episode in running]),
    )


def _remove_env(state: LstmState | None, index: int) -> LstmState | None:
    """Remove one environment from an LSTM state of shape ``(layers, n_envs, units)``."""
    if state is None:
        return None
    return tuple(np.delete(part, index, axis=1) for part in state)
