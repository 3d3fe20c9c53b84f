"""An SB3 policy as an ONNX graph: raw observations in, actions as the environment takes them and their distribution out."""

from __future__ import annotations

import copy
import io
import linecache
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from traceback import walk_tb
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from sb3_contrib.ars.policies import ARSPolicy
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from mlflow_sb3.envs.spaces import action_sizes, input_spaces, space_start
from mlflow_sb3.inference.onnx_policy import NEXT_PREFIX
from mlflow_sb3.inference.policy_inputs import ACTION_MASKS, STATE_NAMES, array_dtype

Tensors = dict[str, torch.Tensor]
_LOGGERS = (
    "torch.onnx",
    "torch.export",
    "torch._export",
    "torch._dynamo",
    "torch.fx.experimental.symbolic_shapes",
)


def build_graph(
    model: BaseAlgorithm, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> tuple[bytes, dict[str, Any]]:
    """Export the policy of an algorithm.

    Args:
        model: Is not changed.
        observation_space: As the environment has it: images as they come, integers with their start, nothing normalized.
        action_space: As the environment has it.

    Returns:
        The graph, and the distribution that its parameters belong to, as the module ``distribution`` reads it.

    Raises:
        MlflowException: PyTorch cannot export a module of the policy; names it and the operator.
    """
    exported = PolicyModule(model, observation_space, action_space).eval()
    example = exported.example()
    batch = torch.export.Dim("batch")
    shapes = tuple({1 if name in STATE_NAMES else 0: batch} for name in example)
    with _quiet(), _unvalidated_distributions(), torch.no_grad():
        outputs = [*exported.named(*example.values())]
        try:
            program = torch.onnx.export(
                exported,
                tuple(example.values()),
                dynamo=True,
                verbose=False,
                input_names=list(example),
                output_names=outputs,
                dynamic_shapes=(shapes,),
            )
        except torch.onnx.OnnxExporterError as error:
            raise MlflowException.invalid_parameter_value(
                f"the policy cannot be exported to ONNX: {_culprit(error, exported, example)}; "
                "take other policy_kwargs, or log it with inference=native."
            ) from error
    if program is None:
        raise RuntimeError(
            "torch.onnx.export returned no program, though dynamo=True promises one."
        )
    buffer = io.BytesIO()
    program.save(buffer, external_data=False)  # type: ignore[arg-type]  # takes files too
    return buffer.getvalue(), _distribution(model, exported.policy, action_space, set(outputs))


class PolicyModule(nn.Module):
    """What the graph computes: the deterministic action, the parameters of the distribution, and the next state."""

    def __init__(
        self,
        model: BaseAlgorithm,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        super().__init__()
        self.policy = _copied(model.policy)
        self.policy.set_training_mode(False)
        self.action_space = action_space
        self.names = input_spaces(observation_space)
        keys = list(observation_space) if isinstance(observation_space, spaces.Dict) else [""]
        self.keys = dict(zip(self.names, keys, strict=True))
        self.eyes = nn.ModuleList(
            _ObservationPreprocessor(
                space,
                subspace(self.policy.observation_space, key),
                model.get_vec_normalize_env(),
                key,
            )
            for space, key in zip(self.names.values(), keys, strict=True)
        )
        if isinstance(action_space, spaces.Box):
            self.low, self.high = (
                torch.as_tensor(action_space.low),
                torch.as_tensor(action_space.high),
            )
        first = space_start(action_space)
        self.start = None if first is None else torch.as_tensor(first)

    def example(self) -> Tensors:
        """Two observations of zeros, or of the smallest integers, with a state and masks where the policy has them."""
        tensors = {}
        for name, space in self.names.items():
            first = space_start(space)
            zeros = np.zeros((2, *(space.shape or ())), array_dtype(space.dtype))
            tensors[name] = torch.as_tensor(zeros if first is None else zeros + first)
        if isinstance(self.policy, RecurrentActorCriticPolicy):
            layers, _, units = self.policy.lstm_hidden_state_shape
            tensors |= {name: torch.zeros(layers, 2, units) for name in STATE_NAMES}
        if isinstance(self.policy, MaskableActorCriticPolicy):
            tensors[ACTION_MASKS] = torch.ones(
                2, sum(action_sizes(self.action_space)), dtype=torch.bool
            )
        return tensors

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, for the inputs in the order of ``example``."""
        return tuple(self.named(*tensors).values())

    def named(self, *tensors: torch.Tensor) -> Tensors:
        """The outputs by their names, for the inputs in the order of ``example``."""
        seen = [eye(tensor) for eye, tensor in zip(self.eyes, tensors, strict=False)]
        observation = (
            dict(zip(self.keys.values(), seen, strict=True))
            if isinstance(self.policy.observation_space, spaces.Dict)
            else seen[0]
        )
        action, parameters, state = compute_action(self.policy, observation, *tensors[len(seen) :])
        return {"action": self._act(action), **parameters, **state}

    def _act(self, action: torch.Tensor) -> torch.Tensor:
        """From the policy's action to the environment's."""
        action = action.reshape(-1, *(self.action_space.shape or ()))
        if isinstance(self.action_space, spaces.Box):
            if self.policy.squash_output:
                return self.low + (0.5 * (action + 1.0) * (self.high - self.low))
            return torch.clamp(action, self.low, self.high)
        return action if self.start is None else action + self.start


class _ObservationPreprocessor(nn.Module):
    """One array of an observation, from what the environment gives to what the policy expects."""

    def __init__(
        self,
        raw: spaces.Space[Any],
        seen: spaces.Space[Any],
        vec_normalize: VecNormalize | None,
        key: str,
    ) -> None:
        super().__init__()
        first = space_start(raw)
        self.start = None if first is None else torch.as_tensor(first)
        self.transposed = raw.shape != seen.shape
        learned: Any = (
            None if vec_normalize is None or not vec_normalize.norm_obs else vec_normalize.obs_rms
        )
        moments = learned.get(key) if isinstance(learned, dict) else learned
        self.normalized = moments is not None
        if moments is not None and vec_normalize is not None:
            self.mean = torch.as_tensor(moments.mean)
            self.std = torch.as_tensor(np.sqrt(moments.var + vec_normalize.epsilon))
            self.clip = float(vec_normalize.clip_obs)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        if self.start is not None:
            observation = observation - self.start
        if self.normalized:  # in double precision, as VecNormalize
            observation = torch.clamp(
                (observation.double() - self.mean) / self.std, -self.clip, self.clip
            ).float()
        if self.transposed:
            observation = observation.permute(0, 3, 1, 2)
        return observation


def subspace(space: spaces.Space[Any], key: str) -> spaces.Space[Any]:
    """The space of a key of a Dict, or the space itself."""
    return space.spaces[key] if isinstance(space, spaces.Dict) else space


def compute_action(
    policy: BasePolicy, observation: Any, *more: torch.Tensor
) -> tuple[torch.Tensor, Tensors, Tensors]:
    """The deterministic action, the parameters of its distribution before squashing and clipping, and the next state.

    Args:
        policy: SB3's.
        observation: Tensors as the policy expects them from its environment.
        more: The state of a recurrent policy, or the masks of a masked one.
    """
    if isinstance(policy, RecurrentActorCriticPolicy):
        distribution, state = _remembered(policy, observation, *more)
        return distribution.get_actions(deterministic=True), _parameters(distribution), state
    if isinstance(policy, MaskableActorCriticPolicy):
        distribution = policy.get_distribution(observation, action_masks=more[0])  # type: ignore[arg-type]  # tensors too
        return distribution.get_actions(deterministic=True), _parameters(distribution), {}
    if isinstance(policy, ActorCriticPolicy):
        distribution = policy.get_distribution(observation)
        return distribution.get_actions(deterministic=True), _parameters(distribution), {}
    return policy._predict(observation, deterministic=True), _values(policy, observation), {}


def _values(policy: BasePolicy, observation: Any) -> Tensors:
    """What decides in policies that are no actor-critic of a distribution of its own; nothing for deterministic ones."""
    if isinstance(policy, DQNPolicy):
        return {"q_values": policy.q_net(observation)}
    if isinstance(policy, QRDQNPolicy):
        return {"q_values": policy.quantile_net(observation).mean(dim=1)}
    if isinstance(policy, ARSPolicy) and isinstance(policy.action_space, spaces.Discrete):
        return {
            "scores": policy.action_net(
                policy.extract_features(observation, policy.features_extractor)
            )
        }
    actor = getattr(policy, "actor", None)
    if actor is None or not hasattr(actor, "get_action_dist_params"):
        return {}
    mean, log_std, more = actor.get_action_dist_params(observation)
    return _parameters(actor.action_dist.proba_distribution(mean, log_std, **more))


def _parameters(distribution: Any) -> Tensors:
    """Logits of one or several choices beside each other, or mean and logarithm of the standard deviation."""
    choices = getattr(distribution, "distributions", None) or distribution.distribution
    if isinstance(choices, list):
        return {"logits": torch.cat([choice.logits for choice in choices], dim=1)}
    if hasattr(choices, "logits"):
        return {"logits": choices.logits}
    return {"mean": choices.mean, "log_std": choices.stddev.log()}


def _remembered(
    policy: RecurrentActorCriticPolicy, observation: Any, hidden: torch.Tensor, cell: torch.Tensor
) -> tuple[Any, Tensors]:
    """One step of the actor's LSTM; SB3's own method branches on the values of episode starts, which a graph cannot."""
    features = super(ActorCriticPolicy, policy).extract_features(
        observation, policy.pi_features_extractor
    )
    latent, state = policy.lstm_actor(features.unsqueeze(0), (hidden, cell))
    latent = policy.mlp_extractor.forward_actor(latent.squeeze(0))
    return policy._get_action_dist_from_latent(latent), {
        NEXT_PREFIX + name: part for name, part in zip(STATE_NAMES, state, strict=True)
    }


def _distribution(
    model: BaseAlgorithm, policy: BasePolicy, action_space: spaces.Space[Any], parameters: set[str]
) -> dict[str, Any]:
    """How SB3 samples the actions of this policy."""
    if "q_values" in parameters and isinstance(action_space, spaces.Discrete):
        epsilon = float(getattr(model, "exploration_rate", 0.0))
        return {
            "kind": "epsilon_greedy",
            "epsilon": epsilon,
            "n": int(action_space.n),
            "start": int(action_space.start),
        }
    if "mean" in parameters and isinstance(action_space, spaces.Box):
        kind = "squashed_gaussian" if policy.squash_output else "gaussian"
        return {"kind": kind, "low": _bounds(action_space.low), "high": _bounds(action_space.high)}
    if (
        "logits" in parameters
        and isinstance(action_space, spaces.MultiBinary)
        and not isinstance(policy, MaskableActorCriticPolicy)
    ):
        return {"kind": "bernoulli"}
    if "logits" in parameters:
        first = space_start(action_space)
        nvec = action_sizes(action_space)
        return {
            "kind": "categorical",
            "nvec": nvec,
            "start": [0] * len(nvec) if first is None else np.ravel(first).tolist(),
        }
    return (
        {"kind": "deterministic"}
        if isinstance(policy, (ARSPolicy, TD3Policy))
        else {"kind": "unknown"}
    )


def _bounds(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values.ravel()]


def _copied(policy: BasePolicy) -> BasePolicy:
    """The policy again, on the CPU, without the last distribution that it keeps when it has acted, which cannot be copied.

    ``onnx_policy.save`` would not do: that of sb3-contrib 2.9 forgets arguments, such as the size of an LSTM.
    """
    distributions = [
        held
        for module in policy.modules()
        for held in vars(module).values()
        if isinstance(held, Distribution)
    ]
    last = [value for held in distributions for value in vars(held).values() if _is_last(value)]
    forgotten: dict[int, Any] = {id(value): None for value in last}
    return copy.deepcopy(policy, forgotten).to("cpu")


def _is_last(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, (torch.Tensor, torch.distributions.Distribution))


def _culprit(error: BaseException, exported: PolicyModule, example: Tensors) -> str:
    """The module that PyTorch failed in, and the operator or the sentence that it failed with."""
    reasons = [error]
    while reasons[-1].__cause__ is not None:
        reasons.append(reasons[-1].__cause__)
    operators = [
        found
        for reason in reasons
        for found in re.findall(r"OpOverload\(op='([\w.]+)'", str(reason))
    ]
    if operators:
        return f"{_module_of(operators[-1], exported, example)} uses the operator {operators[-1]}, which has no ONNX function"
    frames = [
        frame
        for frame in walk_tb(reasons[-1].__traceback__)
        if isinstance(frame[0].f_locals.get("self"), nn.Module)
    ]
    sentence = str(reasons[-1]).partition("\n")[0].strip()[:200]
    if not frames:
        return f"{type(exported.policy).__name__}: {sentence}"
    frame, line = frames[-1]
    return f"{type(frame.f_locals['self']).__name__}, at '{linecache.getline(frame.f_code.co_filename, line).strip()}': {sentence}"


def _module_of(operator: str, exported: PolicyModule, example: Tensors) -> str:
    """The class of the innermost module that calls an operator."""
    program = torch.export.export(exported, tuple(example.values())).run_decompositions()
    nodes = [
        node for node in program.graph.nodes if operator.rpartition(".")[2] in str(node.target)
    ]
    stacks = [list(node.meta.get("nn_module_stack", {}).values()) for node in nodes]
    return (
        str(stacks[0][-1][1]).rpartition(".")[2]
        if stacks and stacks[0]
        else type(exported.policy).__name__
    )


@contextmanager
def _unvalidated_distributions() -> Iterator[None]:
    """The checks of ``torch.distributions`` depend on values, which an exported graph cannot."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporting, torch 2.13 warns of much, and prints what it cannot export; what is wrong in the graph, the comparison finds."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
