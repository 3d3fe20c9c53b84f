"""Find the policy of an agent and the environment that it is evaluated in."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import gymnasium
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import is_models_uri
from numpy.typing import NDArray

from mlflow_sb3.envs import Env, entry_points, env_spec, rollout, spaces, spec_rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.flavor import api, registered_agent
from mlflow_sb3.inference.policy_inputs import LstmState, SpaceInfo
from mlflow_sb3.inference.policy_protocol import AgentPolicy, Policy
from mlflow_sb3.registry import integrity
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.registry.signing import KeyPath

_POLICY_HINT = "a model URI, a policy of mlflow_sb3.load_policy, or an SB3 algorithm"


@dataclass(frozen=True)
class EvaluatedAgent:
    """A policy, and the environment that it plays in.

    Attributes:
        policy: Policy that chooses the actions.
        environment: ``EnvSpec`` JSON, or a Gymnasium environment. None if it is unknown.
        version: Registered version of the agent. None if it is not registered.
        model_id: Id of its logged model. None if it is not logged.
    """

    policy: Policy
    environment: str | Env | None
    version: Version | None = None
    model_id: str | None = None

    def play(
        self, seeds: Sequence[int], *, on_episode: Callable[[], object] = lambda: None
    ) -> Episodes:
        """Play one episode for each seed; see ``rollout.play_episodes``.

        A Gymnasium environment plays one episode after the other, and stays open.

        Raises:
            MlflowException: The environment is unknown.
        """
        if self.environment is None:
            raise MlflowException.invalid_parameter_value(
                f"{self.version or 'The agent'} has no environment to play in. "
                "Pass env, such as env='CartPole-v1'."
            )
        if isinstance(self.environment, str):
            return spec_rollout.play_episodes(
                self.policy, self.environment, seeds, on_episode=on_episode
            )
        env = OpenEnv(self.environment)
        return rollout.play_episodes(
            self.policy, lambda: env, seeds, n_envs=1, on_episode=on_episode
        )


def find_agent(
    model: Any,
    env: str | Env | None = None,
    *,
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
) -> EvaluatedAgent:
    """Return the agent that an argument of ``mlflow_sb3.evaluate`` names.

    Args:
        model: Model URI, policy, SB3 algorithm, or model of ``mlflow.pyfunc.load_model``.
        env: As in ``mlflow_sb3.evaluate``.
        public_key: As in ``mlflow_sb3.evaluate``.
        allow_pickle: As in ``mlflow_sb3.evaluate``.

    Raises:
        MlflowException: The model cannot be loaded or is none of these, or ``env`` cannot be made
            or does not fit the agent.
    """
    environment = _find_environment(env)
    if isinstance(model, str):
        agent = _load_agent(model, public_key, allow_pickle=allow_pickle)
    elif public_key is not None:
        raise MlflowException.invalid_parameter_value(
            f"public_key is passed with a {type(model).__name__}, but only a registered version "
            "has a signature. Pass a URI such as models:/name@champion."
        )
    elif _is_algorithm(model):
        return _wrap_algorithm(model, environment)
    else:
        agent = _wrap_policy(model)
    if environment is None:
        return agent
    _check_spaces(agent.policy, environment)
    # The metrics of a logged model describe the agent in its own environment.
    return replace(agent, environment=environment, model_id=None)


def _find_environment(env: str | Env | None) -> str | Env | None:
    """Return ``EnvSpec`` JSON for a Gymnasium id, and other valid values unchanged."""
    if isinstance(env, str):
        if env.lstrip().startswith("{"):  # may come from a model of another person
            return env
        entry_points.trust_options(env)
        return env_spec.compose_spec(env)
    if env is None or isinstance(env, gymnasium.Env):
        return env
    raise MlflowException.invalid_parameter_value(
        f"env is a {type(env).__module__}.{type(env).__name__}. "
        "Pass a Gymnasium id, EnvSpec JSON, or a gymnasium.Env."
    )


def _load_agent(uri: str, public_key: KeyPath | None, *, allow_pickle: bool) -> EvaluatedAgent:
    version = integrity.resolve_version(uri)
    if version is None:
        policy = api.load_policy(uri, public_key=public_key, allow_pickle=allow_pickle)
        model_id = uri.rstrip("/").removeprefix("models:/") if is_models_uri(uri) else None
        return EvaluatedAgent(policy, policy.environment, model_id=model_id)
    policy = registered_agent.load_version_policy(
        version, public_key=public_key, allow_pickle=allow_pickle
    )
    return EvaluatedAgent(policy, policy.environment, version, version.model_id)


def _is_algorithm(model: Any) -> bool:
    """Return whether a model is an SB3 algorithm, without importing SB3."""
    module = sys.modules.get("stable_baselines3.common.base_class")
    return module is not None and isinstance(model, module.BaseAlgorithm)


def _wrap_algorithm(model: BaseAlgorithm, environment: str | Env | None) -> EvaluatedAgent:
    from mlflow_sb3.flavor import source_env
    from mlflow_sb3.flavor.sb3_policy import SB3Policy

    source_env.warn_without_statistics(model)
    if environment is None or isinstance(environment, str):
        source = source_env.find_source_env(model, environment)
        environment = source.description
    else:
        source = source_env.describe_source(environment, model)
    policy = SB3Policy.from_algorithm(model, source.observation_space, source.action_space)
    return EvaluatedAgent(policy, environment)


def _wrap_policy(model: Any) -> EvaluatedAgent:
    if hasattr(model, "get_raw_model"):  # a model of mlflow.pyfunc.load_model
        model = get_raw_policy(model)
    if not callable(getattr(model, "predict", None)):
        raise MlflowException.invalid_parameter_value(
            f"model is a {type(model).__module__}.{type(model).__name__}. Pass {_POLICY_HINT}."
        )
    policy = model if hasattr(model, "has_action_masks") else PredictorPolicy(model)
    return EvaluatedAgent(policy, getattr(model, "environment", None))


def get_raw_policy(model: Any) -> Any:
    """Return the policy of a model that ``mlflow.pyfunc.load_model`` loaded.

    Raises:
        MlflowException: The model has none.
    """
    try:
        policy = model.get_raw_model()
    except (AttributeError, NotImplementedError):
        policy = None
    if not hasattr(policy, "agent_info"):
        raise MlflowException.invalid_parameter_value(
            "The model was not logged with mlflow_sb3, or it runs in another process. "
            f"Pass {_POLICY_HINT}, and leave env_manager out."
        )
    return policy


def _check_spaces(policy: Policy, environment: str | Env) -> None:
    """Check that an environment fits a policy whose spaces are known."""
    if not isinstance(getattr(policy, "action_space", None), SpaceInfo):
        return
    agent = cast("AgentPolicy", policy)
    make_env = (
        env_spec.make_from_spec(environment)
        if isinstance(environment, str)
        else nullcontext(environment)
    )
    with make_env as env:
        for kind, space, trained in (
            ("observation", env.observation_space, agent.observation_space),
            ("action", env.action_space, agent.action_space),
        ):
            if not spaces.has_same_layout(spaces.describe_space(space), trained):
                raise MlflowException.invalid_parameter_value(
                    f"env has the {kind} space {space}, but the agent was trained with "
                    f"{trained.text}. Pass an environment that fits the agent, with its wrappers."
                )


class PredictorPolicy:
    """A policy of any object with SB3's method ``predict``, such as ``model.policy``."""

    def __init__(self, predictor: Any) -> None:
        """Wrap a predictor. It gets action masks if ``predict`` has the argument."""
        self._predictor = predictor
        self.has_action_masks = "action_masks" in inspect.signature(predictor.predict).parameters

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """Return the actions and the next state of the predictor."""
        masks = {} if action_masks is None else {"action_masks": action_masks}
        actions, next_state = self._predictor.predict(
            observation, state, episode_start, deterministic, **masks
        )
        return actions, next_state


class OpenEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that stays open, because the caller made it and may use it again."""

    def close(self) -> None:
        """Do nothing."""
