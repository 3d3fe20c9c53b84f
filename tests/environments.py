"""Fast environments for tests, registered with Gymnasium, and wrappers for them."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

Observation = NDArray[np.float32]


class OneStep(gymnasium.Env[Observation, np.int64]):
    """Episodes of one step, whose return is the action.

    ``seeds`` collects the seeds of all resets.

    Args:
        step_seconds: Time that a step takes.
    """

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)
    seeds: ClassVar[list[int]] = []

    def __init__(self, *, step_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        if seed is not None:
            OneStep.seeds.append(seed)
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        time.sleep(self.step_seconds)
        return np.zeros(1, np.float32), float(action), True, False, {}


class Levels(gymnasium.Env[Observation, np.int64]):
    """Episodes of one step, whose return is the mean of the action plus normal noise.

    The quality of an agent is therefore known. Most actions have the mean 0, so that an agent that
    takes action 5 is better than random actions in every gate, whatever its seeds.

    Args:
        spread: Standard deviation of the noise.
        fault: ``"crash"`` to raise an error in each step, ``"nan"`` for rewards of NaN.
    """

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(24)
    means = (0.0, 0.02, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, *16 * (0.0,))

    def __init__(self, *, spread: float = 1.0, fault: str = "") -> None:
        self.spread = spread
        self.fault = fault

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if self.fault == "crash":
            raise LookupError("the simulator is gone")
        reward = self.means[action] + self.spread * self.np_random.normal(size=24)[action]
        return (
            np.zeros(1, np.float32),
            float("nan") if self.fault == "nan" else float(reward),
            True,
            False,
            {},
        )


class Spaces(gymnasium.Env[Any, Any]):
    """Episodes of three steps with random observations.

    An action outside of the action space is an error.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), 0.0, self.steps == 3, False, {}


gymnasium.register("OneStep-v0", entry_point="tests.environments:OneStep")


OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,)),
    "image": spaces.Box(0, 255, (36, 40, 3), np.uint8),
    "Discrete": spaces.Discrete(4, start=2),
    "MultiDiscrete": spaces.MultiDiscrete([3, 4]),
    "MultiBinary": spaces.MultiBinary(5),
    "Dict": spaces.Dict(
        vector=spaces.Box(-1, 1, (3,)),
        image=spaces.Box(0, 255, (36, 40, 3), np.uint8),
        number=spaces.Discrete(3, start=1),
        flags=spaces.MultiBinary(2),
    ),
}
RESERVED = spaces.Dict(
    hidden=spaces.Box(-1, 1, (2,)),
    cell=spaces.Box(-1, 1, (3,)),
    action_masks=spaces.Box(-1, 1, (1,)),
)
"""A Dict with the input names of recurrent and masked policies as keys."""
ACTIONS: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3, start=-1),
    "Box": spaces.Box(np.array([-3, 0], np.float32), np.array([1, 9], np.float32)),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
}


class Named(Spaces):
    """Spaces chosen by the keys of ``OBSERVATIONS`` and ``ACTIONS``.

    The last value of each integer of an action is valid, and every second one before it.
    """

    def __init__(self, observations: str, actions: str) -> None:
        super().__init__(
            deepcopy((OBSERVATIONS | {"Reserved": RESERVED})[observations]),
            deepcopy(ACTIONS[actions]),
        )

    def action_masks(self) -> NDArray[np.bool_]:
        sizes = {"Discrete": [3], "MultiDiscrete": [2, 3], "MultiBinary": [2, 2, 2]}[
            type(self.action_space).__name__
        ]
        return np.concatenate([np.arange(size) % 2 == (size - 1) % 2 for size in sizes])


class Shifted(Spaces):
    """Discrete spaces that do not start at 0."""

    def __init__(self) -> None:
        observations = {
            "die": spaces.Discrete(6, start=1),
            "pair": spaces.MultiDiscrete([2, 3], start=[4, -1]),
            "box": spaces.Box(-1, 1, (2,)),
        }
        super().__init__(spaces.Dict(observations), spaces.Discrete(3, start=-1))


class Valid(Spaces):
    """Two of three actions are valid, and the other one is an error.

    The method with the masks does not have the name that SB3 expects.
    """

    def __init__(self) -> None:
        super().__init__(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))

    def valid_actions(self) -> NDArray[np.bool_]:
        return np.array([True, False, True])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.valid_actions()[action]
        return super().step(action)


class Masked(Valid):
    """``Valid`` with the method that SB3 expects."""

    def action_masks(self) -> NDArray[np.bool_]:
        return self.valid_actions()


class MaskedCartPole(CartPoleEnv):
    """CartPole without the action that pushes the cart away from the center."""

    def action_masks(self) -> NDArray[np.bool_]:
        position = 0.0 if self.state is None else self.state[0]
        return np.array([position > -0.1, position < 0.1], dtype=np.bool_)


class Picture(Spaces):
    """Channel-last images as observations."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(0, 255, (36, 40, 3), np.uint8), spaces.Discrete(3))


class Remembering(OneStep, EzPickle):
    """Rewards that decrease over all episodes. A copy by EzPickle starts again."""

    def __init__(self) -> None:
        EzPickle.__init__(self)
        self.steps = 0

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(1, np.float32), float(action) / self.steps, True, False, {}


class ScaleObservation(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Multiply observations by a factor, without recording the argument."""

    def __init__(self, env: gymnasium.Env[Any, Any], factor: float = 0.0) -> None:
        super().__init__(env)
        self.factor = factor

    def observation(self, observation: Any) -> Any:
        return (observation * self.factor).astype(np.float32)


class MisnamedArgument(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper whose first parameter is not called ``env``."""

    def __init__(self, game: gymnasium.Env[Any, Any]) -> None:
        super().__init__(game)


def wrapped_cartpole() -> gymnasium.Env[Any, Any]:
    """Entry point that adds a wrapper."""
    return ScaleObservation(gymnasium.make("CartPole-v1").unwrapped, factor=2.0)


def no_environment(env: gymnasium.Env[Any, Any]) -> None:
    """Function that returns None instead of an environment."""
    env.reset()


gymnasium.register(
    "BitFlipping-v0",
    entry_point="stable_baselines3.common.envs:BitFlippingEnv",
    kwargs={"n_bits": 4},
)
gymnasium.register("Levels-v0", entry_point="tests.environments:Levels")
gymnasium.register("Masked-v0", entry_point="tests.environments:Masked")
gymnasium.register("MaskedCartPole-v0", entry_point="tests.environments:MaskedCartPole")
gymnasium.register("Named-v0", entry_point="tests.environments:Named")
gymnasium.register("Picture-v0", entry_point="tests.environments:Picture")
gymnasium.register("Remembering-v0", entry_point="tests.environments:Remembering")
gymnasium.register("Shifted-v0", entry_point="tests.environments:Shifted")
gymnasium.register("Valid-v0", entry_point="tests.environments:Valid")
gymnasium.register(
    "WrappedCartPole-v0", entry_point="tests.environments:wrapped_cartpole", max_episode_steps=500
)
