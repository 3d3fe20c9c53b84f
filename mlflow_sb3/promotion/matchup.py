"""Load a challenger and a champion, and let both play in one environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_sb3.client import permissions
from mlflow_sb3.envs import Env, entry_points, env_spec, spaces, spec_rollout, vec_env_factory
from mlflow_sb3.envs.random_policy import RandomPolicy
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.flavor.registered_agent import RegisteredAgent
from mlflow_sb3.inference.policy_inputs import SpaceInfo
from mlflow_sb3.inference.policy_protocol import Policy
from mlflow_sb3.promotion.gate import Comparison, Gate, compare_agents
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports import progress

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


@dataclass(frozen=True)
class Matchup:
    """Two policies and the judging environment, in which both play.

    Attributes:
        challenger: Policy of the challenger.
        champion: Policy of the champion, or a uniform random policy.
        environment: ``EnvSpec`` JSON of the judging environment.
        reward_threshold: Reward threshold of the environment, if it has one.
        gate: Settings of the test.
        seed: Seed that the episode seeds and the bootstrap are derived from.
    """

    challenger: Policy
    champion: Policy
    environment: str
    reward_threshold: float | None
    gate: Gate
    seed: int

    def play(self, *, on_episode: Callable[[], object] = lambda: None) -> Comparison:
        """Play both policies until the gate decides.

        They play the same seeds, unless the episodes of the environment cannot be seeded.

        Args:
            on_episode: Called after each episode, for a progress bar.
        """
        episodes = self.gate.episodes
        seeds = generate_episode_seeds(self.seed, "gate", 2 * episodes)
        is_paired = not vec_env_factory.is_vec_env(self.environment)
        champion_seeds = seeds[:episodes] if is_paired else seeds[episodes:]

        def play_pairs(start: int, stop: int) -> tuple[Episodes, Episodes]:
            return (
                self._play(self.challenger, seeds[start:stop], on_episode),
                self._play(self.champion, champion_seeds[start:stop], on_episode),
            )

        return compare_agents(self.gate, play_pairs, seed=self.seed, is_paired=is_paired)

    def play_with_bar(self, description: str, *, is_shown: bool) -> Comparison:
        """Play like ``play``, with a progress bar that says if the gate stops early.

        Args:
            description: Text before the bar.
            is_shown: Whether to show the bar.
        """
        total = 2 * self.gate.episodes
        with progress.make_bar(description, "episode", total=total, is_shown=is_shown) as bar:
            comparison = self.play(on_episode=bar.update)
            if comparison.is_stopped_early:
                bar.set_postfix_str("stopped early: surely not better")
        return comparison

    def _play(self, policy: Policy, seeds: list[int], on_episode: Callable[[], object]) -> Episodes:
        return spec_rollout.play_episodes(policy, self.environment, seeds, on_episode=on_episode)


def arrange_matchup(
    challenger: Version,
    champion: Version | None,
    gate: Gate,
    *,
    judging_environment: str | None = None,
    choose_alpha: Callable[[int], float] | None = None,
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
) -> Matchup:
    """Load both agents and choose the environment that they play in.

    Args:
        challenger: Version to promote.
        champion: Version to compare with; None for a uniform random policy.
        gate: Settings of the test; the seed depends on them.
        judging_environment: ``"challenger"`` or ``"champion"`` for the environment of that agent,
            a Gymnasium id, or ``EnvSpec`` JSON. By default both agents must share an environment.
            If there is no champion, both words mean the challenger's environment.
        choose_alpha: Called with the seed of the gate. Returns the ``alpha`` to use instead of
            that of ``gate``, which changes the seed.
        public_key: Public key that must have signed both versions.
        allow_pickle: As in ``registered_agent.load_agent``.

    Raises:
        MlflowException: An agent cannot be loaded, or the judging environment cannot be made or
            does not fit the spaces of an agent. Or ``judging_environment`` is None, although the
            agents were trained in different environments.
    """
    versions = [version for version in (challenger, champion) if version is not None]
    agents = [_load_agent(version, public_key, allow_pickle) for version in versions]
    environment = _choose_environment(agents, judging_environment)
    champion_id = None if champion is None else champion.model_id
    identity = (challenger.name, challenger.model_id, champion_id, environment)
    if choose_alpha is not None:
        gate = replace(gate, alpha=choose_alpha(gate.derive_seed(*identity)))
    seed = gate.derive_seed(*identity)
    with env_spec.make_from_spec(environment) as env:
        if judging_environment is not None:
            _check_spaces(env, agents)
        opponent: Policy = (
            agents[1].policy
            if champion is not None
            else RandomPolicy(env, seed=seed, has_action_masks=agents[0].policy.has_action_masks)
        )
        threshold = None if env.spec is None else env.spec.reward_threshold
    return Matchup(agents[0].policy, opponent, environment, threshold, gate, seed)


def _load_agent(
    version: Version, public_key: KeyPath | None, allow_pickle: bool
) -> RegisteredAgent:
    try:
        return registered_agent.load_agent(
            version, public_key=public_key, allow_pickle=allow_pickle
        )
    except (MlflowException, OSError) as error:
        cause = permissions.explain_denial(error, "READ", f"the experiment of {version}") or error
        raise MlflowException.invalid_parameter_value(
            f"{version} cannot be loaded: {str(cause).rstrip('.')}. "
            "Choose another version, or register the agent again."
        ) from error


def _choose_environment(agents: list[RegisteredAgent], judging_environment: str | None) -> str:
    """Return the judging environment as ``EnvSpec`` JSON."""
    if judging_environment is None:
        return _get_shared_environment(agents)
    if judging_environment == "champion":
        return agents[-1].environment
    if judging_environment == "challenger":
        return agents[0].environment
    if judging_environment.lstrip().startswith("{"):
        env_spec.make_from_spec(judging_environment).close()
        return judging_environment
    if ":" in judging_environment:  # a replay has the environment from a record
        entry_points.check_module(judging_environment)
    return env_spec.compose_spec(judging_environment)


def _get_shared_environment(agents: list[RegisteredAgent]) -> str:
    first, *others = agents
    for other in others:
        if not env_spec.is_same_env(first.environment, other.environment):
            raise MlflowException.invalid_parameter_value(
                f"{first.version} and {other.version} were trained in different environments, "
                "so their returns cannot be compared. Set environment to challenger, champion, "
                "a Gymnasium id or EnvSpec JSON."
            )
    return first.environment


def _check_spaces(env: Env, agents: list[RegisteredAgent]) -> None:
    observations = spaces.describe_space(env.observation_space)
    actions = spaces.describe_space(env.action_space)
    for agent in agents:
        _check_space("observation", observations, agent.policy.observation_space, agent.version)
        _check_space("action", actions, agent.policy.action_space, agent.version)


def _check_space(kind: str, space: SpaceInfo, trained: SpaceInfo, version: Version) -> None:
    if not spaces.has_same_layout(space, trained):
        raise MlflowException.invalid_parameter_value(
            f"The judging environment has the {kind} space {space.text}, but {version} was "
            f"trained with {trained.text}. Choose an environment that fits all agents, if "
            "necessary with wrappers in EnvSpec JSON."
        )
