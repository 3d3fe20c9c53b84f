"""A challenger and a champion, or who stands in for one, in the judge's environment: what a gate lets play."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from mlflow_sb3.client import permissions
from mlflow_sb3.envs import env_spec, rollout, spaces
from mlflow_sb3.envs.random_policy import RandomPolicy
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import episode_seeds
from mlflow_sb3.envs.wrapper_config import Env
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.flavor.registered_agent import RegisteredAgent
from mlflow_sb3.inference.policy_inputs import SpaceInfo
from mlflow_sb3.inference.policy_protocol import Policy
from mlflow_sb3.promotion.gate import Comparison, Gate, compare_agents
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


@dataclass(frozen=True)
class Matchup:
    """Two policies, the environment that judges them, and the seed of the games."""

    challenger: Policy
    champion: Policy
    environment: str
    reward_threshold: float | None
    seed: int

    def play(self, gate: Gate, *, on_episode: Callable[[], object] = lambda: None) -> Comparison:
        """Let both play the same seeds, until the gate has seen enough."""
        seeds = episode_seeds(self.seed, "gate", gate.episodes)

        def both(start: int, stop: int) -> tuple[Episodes, Episodes]:
            return self._play(self.challenger, seeds[start:stop], on_episode), self._play(
                self.champion, seeds[start:stop], on_episode
            )

        return compare_agents(gate, both, seed=self.seed)

    def _play(self, policy: Policy, seeds: list[int], on_episode: Callable[[], object]) -> Episodes:
        return rollout.play_episodes(
            policy, lambda: env_spec.make_from_spec(self.environment), seeds, on_episode=on_episode
        )


def arrange_matchup(
    challenger: Version,
    champion: Version | None,
    gate: Gate,
    *,
    judge: str | None = None,
    public_key: KeyPath | None = None,
) -> Matchup:
    """Load both, and find the environment that judges them.

    Args:
        challenger: Has to show that it is better.
        champion: Who is to be beaten; a uniform random policy where there is none.
        gate: Its settings are in the seed of the games.
        judge: ``"challenger"`` or ``"champion"`` for the environment of that one, a Gymnasium id, or ``EnvSpec`` JSON;
            by default it is the environment of both.
        public_key: See ``integrity.fetch_version``.

    Raises:
        MlflowException: One of them cannot be loaded, their environments differ and no judge is named, or they do not fit the judge.
    """
    loaded = [
        _load(version, public_key) for version in (challenger, champion) if version is not None
    ]
    description = _judge(loaded, judge)
    champion_id = None if champion is None else champion.model_id
    seed = gate.seed(challenger.name, challenger.model_id, champion_id, description)
    with env_spec.make_from_spec(description) as env:
        if judge is not None:
            _check_spaces(env, loaded)
        opponent = (
            loaded[1].policy
            if champion is not None
            else RandomPolicy(env, seed=seed, takes_masks=loaded[0].policy.takes_masks)
        )
        threshold = None if env.spec is None else env.spec.reward_threshold
    return Matchup(loaded[0].policy, opponent, description, threshold, seed)


def _load(version: Version, public_key: KeyPath | None) -> RegisteredAgent:
    try:
        return registered_agent.load_agent(version, public_key=public_key)
    except (MlflowException, OSError) as error:
        why = permissions.explain_denial(error) or error
        raise MlflowException.invalid_parameter_value(
            f"{version} cannot be loaded: {why}"
        ) from error


def _judge(loaded: list[RegisteredAgent], judge: str | None) -> str:
    sides = dict(zip(("challenger", "champion"), loaded, strict=False))
    if judge is None:
        first, *others = loaded
        for other in others:
            if not env_spec.is_same_env(first.environment, other.environment):
                raise MlflowException.invalid_parameter_value(
                    f"{first.version} and {other.version} were trained in different environments, so their returns cannot be compared; "
                    "name the one that judges: environment=challenger, champion, a Gymnasium id or EnvSpec JSON."
                )
        return first.environment
    if judge in ("challenger", "champion"):
        return sides.get(judge, loaded[0]).environment
    if judge.lstrip().startswith("{"):
        env_spec.make_from_spec(judge).close()
        return judge
    return env_spec.compose_spec(judge)


def _check_spaces(env: Env, loaded: list[RegisteredAgent]) -> None:
    for one in loaded:
        for kind, found, wanted in (
            (
                "observations",
                spaces.describe_space(env.observation_space),
                one.policy.observation_space,
            ),
            ("actions", spaces.describe_space(env.action_space), one.policy.action_space),
        ):
            if _layout(found) != _layout(wanted):
                raise MlflowException.invalid_parameter_value(
                    f"the environment that judges has {kind} {found.text}, and {one.version} was trained for {wanted.text}; "
                    "name one that both fit, with its wrappers as EnvSpec JSON."
                )


def _layout(space: SpaceInfo) -> Any:
    """What has to be the same for a policy to act: keys, shapes, dtypes and integers; the bounds of floats need not."""
    if space.spaces is not None:
        return {key: _layout(inner) for key, inner in space.spaces.items()}
    return space.shape, space.dtype, space.low, space.high
