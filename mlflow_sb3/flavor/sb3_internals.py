"""Access the private names of Stable-Baselines3 and sb3-contrib that this package needs.

No other module uses an underscored name of SB3. All names exist in stable-baselines3 2.7 to 2.9
and sb3-contrib 2.7 to 2.9. ``tests/flavor/test_sb3_internals.py`` checks them for the installed
version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

if TYPE_CHECKING:
    import torch
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from stable_baselines3.common.distributions import Distribution
    from stable_baselines3.common.policies import BasePolicy
    from stable_baselines3.common.vec_env import VecEnv

LOGGER_ATTRIBUTE = "_logger"
"""Attribute of an algorithm that holds its logger. A logger cannot be pickled."""


def wrap_env(vec_env: VecEnv) -> VecEnv:
    """Wrap a VecEnv as the constructor of an algorithm does (``VecTransposeImage`` for images)."""
    return BaseAlgorithm._wrap_env(vec_env)


def clear_last_observation(model: BaseAlgorithm) -> None:
    """Clear the last observation of an algorithm, so that ``learn`` resets the environments."""
    model._last_obs = None


def has_learned_normalized(model: BaseAlgorithm) -> bool:
    """Return whether an algorithm has learned in a ``VecNormalize``. False if that is not known.

    SB3 saves ``_last_original_obs`` with the model. Off-policy algorithms set it without
    ``VecNormalize`` too.
    """
    is_known = not isinstance(model, OffPolicyAlgorithm)
    return is_known and model._last_original_obs is not None


def get_timesteps_at_start(model: BaseAlgorithm) -> int:
    """Return the number of timesteps that an algorithm had when its current ``learn`` began."""
    return int(model._num_timesteps_at_start)


def set_timesteps_at_start(model: BaseAlgorithm, timesteps: int) -> None:
    """Set the number of timesteps that an algorithm had when its current ``learn`` began."""
    model._num_timesteps_at_start = timesteps


def get_total_timesteps(model: BaseAlgorithm) -> int:
    """Return the number of timesteps at which the current ``learn`` of an algorithm ends."""
    return int(model._total_timesteps)


def predict_action(policy: BasePolicy, observation: Any) -> torch.Tensor:
    """Return the deterministic actions of a policy as a tensor, before SB3 scales or clips them.

    Args:
        policy: Any SB3 policy.
        observation: Tensor of shape ``(n, *observation_shape)``, or a dict of tensors.
    """
    return policy._predict(observation, deterministic=True)


def get_recurrent_distribution(
    policy: RecurrentActorCriticPolicy, latent: torch.Tensor
) -> Distribution:
    """Return the action distribution of a recurrent policy for the output of its actor network.

    Args:
        policy: Policy of RecurrentPPO.
        latent: Output of ``mlp_extractor.forward_actor``, shape ``(n, latent_size)``.
    """
    return policy._get_action_dist_from_latent(latent)


def draws_before_rollout(model: BaseAlgorithm) -> bool:
    """Return whether an algorithm draws random numbers before ``on_rollout_start``.

    Only ARS does. It is the only algorithm with a method ``evaluate_candidates``.
    """
    return hasattr(model, "evaluate_candidates")


@contextmanager
def use_total_progress(model: BaseAlgorithm) -> Iterator[None]:
    """Let ARS compute its schedules from the total timesteps, as the other algorithms do.

    ARS of sb3-contrib 2.7 to 2.9 uses the argument ``total_timesteps`` of ``learn`` instead. After
    a resume, it does not include the timesteps before the snapshot. Without this context, a resumed
    training would have other learning rates.
    """
    if not draws_before_rollout(model):
        yield
        return
    cls: Any = type(model)
    original = cls._update_current_progress_remaining

    def update(self: Any, timesteps: int, _: int) -> None:
        original(self, timesteps, self._total_timesteps)

    cls._update_current_progress_remaining = update
    try:
        yield
    finally:
        del cls._update_current_progress_remaining
