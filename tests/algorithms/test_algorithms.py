from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from stable_baselines3 import DDPG, PPO
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her import HerReplayBuffer
from torch import nn

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.algorithms.hyperparams import find_class
from mlflow_sb3.envs import env_spec, wrapper_config
from mlflow_sb3.wrappers import ZeroStart

BOX = spaces.Box(-1, 1, (3,))
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
ROLLOUTS = {"a2c": {"n_steps": 8}, "trpo": {"n_steps": 8, "batch_size": 8}, "ars": {"n_delta": 1}}
OFF_POLICY = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8}
TINY: dict[str, dict[str, Any]] = {
    **ROLLOUTS,
    **{
        algo: {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
        for algo in ("ppo", "ppo_lstm", "ppo_mask")
    },
    **dict.fromkeys(("crossq", "ddpg", "dqn", "qrdqn", "sac", "td3", "tqc"), OFF_POLICY),
}


class OwnExtractor(FlattenExtractor):
    """A features extractor of somebody's own."""


@pytest.fixture(scope="module")
def pendulum() -> str:
    return env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(
        MlflowException,
        match="'dreamer' is unknown; take one of a2c, ars, crossq, ddpg, dqn, ppo, ppo_lstm, ppo_mask, qrdqn",
    ):
        algorithms.find_algorithm("dreamer")


@pytest.mark.parametrize(
    ("algo", "observations", "actions", "says"),
    [
        (
            "dqn",
            BOX,
            BOX,
            "dqn does not fit the action space Box.*it takes Discrete; use a2c, ars, crossq, ddpg, ppo, ppo_lstm, sac, td3",
        ),
        (
            "sac",
            BOX,
            spaces.Discrete(2),
            r"sac does not fit the action space Discrete\(2\): it takes Box; use a2c, ars, dqn, ppo",
        ),
        ("ppo", BOX, spaces.Tuple([BOX]), "no algorithm takes these actions; wrap the environment"),
        (
            "ppo",
            BOX,
            spaces.MultiDiscrete(np.array([[2, 2]])),
            "SB3 takes MultiDiscrete actions of one dimension",
        ),
        ("ppo", BOX, spaces.MultiBinary([2, 2]), "SB3 takes MultiBinary actions of one dimension"),
        (
            "ppo",
            BOX,
            spaces.Box(0, 5, (2,), np.int64),
            "SB3 takes Box actions of floats with finite bounds",
        ),
        (
            "ppo",
            BOX,
            spaces.Box(-np.inf, np.inf, (2,)),
            "SB3 takes Box actions of floats with finite bounds",
        ),
        (
            "ppo_mask",
            BOX,
            BOX,
            "ppo_mask does not fit the action space Box.*it takes Discrete or MultiDiscrete or MultiBinary",
        ),
        (
            "ppo",
            spaces.Tuple([BOX]),
            spaces.Discrete(2),
            'but no Tuple in it; flatten them, with wrappers=."gymnasium.wrappers:Flatten',
        ),
        (
            "ppo",
            spaces.Dict(a=spaces.Dict(b=BOX)),
            spaces.Discrete(2),
            "or a flat Dict of them, but no Dict in it",
        ),
        ("ppo", spaces.Dict(a=spaces.Text(3)), spaces.Discrete(2), "but no Text in it"),
        (
            "ppo",
            spaces.MultiDiscrete(np.array([[2, 2]])),
            spaces.Discrete(2),
            "but no MultiDiscrete of several dimensions in it",
        ),
        (
            "ars",
            IMAGE,
            spaces.Discrete(2),
            "ars does not fit observations of .*: it has no CnnPolicy; use another algorithm, or wrappers=",
        ),
        (
            "ars",
            spaces.Dict(a=BOX),
            spaces.Discrete(2),
            "ars does not fit observations of .*: it has no MultiInputPolicy",
        ),
        (
            "crossq",
            spaces.Dict(a=BOX),
            BOX,
            "crossq does not fit observations of .*: it has no MultiInputPolicy",
        ),
    ],
)
def test_spaces_that_do_not_fit_are_refused(
    algo: str, observations: spaces.Space[Any], actions: spaces.Space[Any], says: str
) -> None:
    with pytest.raises(MlflowException, match=says):
        algorithms.check_spaces(algo, observations, actions)


@pytest.mark.parametrize("algo", algorithms.ALGORITHMS)
def test_every_algorithm_learns(algo: str, cartpole: str, pendulum: str) -> None:
    discrete = spaces.Discrete in algorithms.ACTION_SPACES[algo]
    masked = env_spec.compose_spec("tests.environments:Masked-v0")
    description = masked if algo == "ppo_mask" else cartpole if discrete else pendulum

    model = algorithms.build(algo, description, TINY[algo], seed=0).learn(16)

    assert type(model) is algorithms.find_algorithm(algo)
    assert model.num_timesteps >= 16


@pytest.mark.parametrize(
    "actions", [BOX, spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)]
)
@pytest.mark.parametrize("algo", algorithms.ALGORITHMS)
def test_the_table_has_the_action_spaces_of_sb3(
    algo: str, actions: spaces.Space[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        gymnasium.registry,
        "Some-v0",
        gymnasium.envs.registration.EnvSpec("Some-v0", "tests.environments:Spaces"),
    )
    env = gymnasium.make("Some-v0", observation_space=BOX, action_space=actions)
    policy = "MlpLstmPolicy" if algo == "ppo_lstm" else "MlpPolicy"

    if isinstance(actions, algorithms.ACTION_SPACES[algo]):
        algorithms.find_algorithm(algo)(policy, env, **TINY[algo])
    elif algo == "ppo_lstm":
        with pytest.raises(
            RuntimeError, match="can't be cast"
        ):  # which sb3-contrib 2.9 notices when it learns
            algorithms.find_algorithm(algo)(policy, env, **TINY[algo]).learn(16)
    else:
        with pytest.raises((AssertionError, NotImplementedError), match="action space"):
            algorithms.find_algorithm(algo)(policy, env, **TINY[algo])


@pytest.mark.parametrize(
    ("hyperparams", "says"),
    [
        (
            {"lerning_rate": 1},
            "ppo has no hyperparameter 'lerning_rate'; it has batch_size, clip_range",
        ),
        (
            {"noise_std": 0.1},
            r"ppo has no hyperparameter 'noise_std' \(which crossq, ddpg, sac, td3, tqc have\); it has",
        ),
        (
            {"replay_buffer_class": "HerReplayBuffer"},
            r"no hyperparameter 'replay_buffer_class' \(which crossq, ddpg, dqn, qrdqn, sac, td3, tqc",
        ),
        (
            {"policy": "LinearPolicy"},
            "ppo has no policy 'LinearPolicy'; it has CnnPolicy, MlpPolicy, MultiInputPolicy",
        ),
        ({"policy": ["MlpPolicy"]}, r"ppo has no policy \['MlpPolicy'\]"),
        ({"policy": "MultiInputPolicy"}, "ppo refuses these hyperparameters"),
        (
            {"callback": "rl_zoo3.callbacks.RawStatisticsCallback"},
            "'callback' is not taken: training has callbacks of its own",
        ),
        (
            {"vec_env_wrapper": "a.B"},
            "'vec_env_wrapper' is not taken: .* wrap each of them by env_wrapper",
        ),
        (
            {"normalize": "yes"},
            "normalize is 'yes'; give true, false, or arguments of VecNormalize",
        ),
        (
            {"normalize": {"norm": 1}},
            "ppo refuses these hyperparameters: .*unexpected keyword argument 'norm'",
        ),
        ({"n_envs": "two"}, "ppo refuses these hyperparameters"),
        ({"learning_rate": "lin_fast"}, "ppo refuses these hyperparameters: could not convert"),
        (
            {"learning_rate": "0.001"},
            "learning_rate is '0.001'; give a number, or 'lin_0.001' for one that falls",
        ),
        ({"n_steps": "many"}, "ppo refuses these hyperparameters"),
        (
            {"n_steps": 10**15, "batch_size": 10**15},
            "ppo refuses these hyperparameters: Unable to allocate",
        ),
        ({"policy_kwargs": {"nonsense": 1}}, "ppo refuses these hyperparameters.*nonsense"),
        (
            {"policy_kwargs": {"activation_fn": "nn.Nothing"}},
            "'nn.Nothing' is no class of torch.nn, torch.optim or SB3; give 'module:Class'",
        ),
        (
            {"policy_kwargs": {"features_extractor_class": "nowhere:Own"}},
            "ppo refuses these hyperparameters: No module named 'nowhere'",
        ),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(
    hyperparams: dict[str, Any], says: str, cartpole: str
) -> None:
    with pytest.raises(MlflowException, match=says):
        algorithms.build("ppo", cartpole, hyperparams, seed=0)


def test_noise_that_nobody_knows_is_refused(pendulum: str) -> None:
    with pytest.raises(
        MlflowException, match="noise_type is 'pink'; give normal or ornstein-uhlenbeck"
    ):
        algorithms.build("sac", pendulum, {"noise_type": "pink"}, seed=0)


def test_masks_that_are_missing_are_refused_with_the_way_to_get_them(cartpole: str) -> None:
    with pytest.raises(
        MlflowException,
        match=r"ppo_mask needs an environment with action_masks\(\).*ActionMasks.*\"method\": \"valid_actions\"",
    ):
        algorithms.build("ppo_mask", cartpole, {}, seed=0)


def test_masks_of_another_name_are_learned_with() -> None:
    wrapper: wrapper_config.WrapperConfig = {
        "mlflow_sb3.wrappers:ActionMasks": {"method": "valid_actions"}
    }
    description = env_spec.compose_spec("tests.environments:Valid-v0", wrappers=[wrapper])

    algorithms.build("ppo_mask", description, TINY["ppo_mask"] | {"n_envs": 2}, seed=0).learn(
        32
    )  # invalid actions are refused there


def test_goals_that_are_missing_are_refused(cartpole: str) -> None:
    with pytest.raises(
        MlflowException,
        match=r"HerReplayBuffer needs an environment with goals, .* observation, achieved_goal, desired_goal",
    ):
        algorithms.build("dqn", cartpole, {"replay_buffer_class": "HerReplayBuffer"}, seed=0)


def test_a_buffer_class_from_nowhere_is_refused(cartpole: str) -> None:
    with pytest.raises(
        MlflowException, match="class 'nowhere:Buffer' cannot be found: No module named 'nowhere'"
    ):
        algorithms.build("dqn", cartpole, {"replay_buffer_class": "nowhere:Buffer"}, seed=0)


@pytest.mark.parametrize(("algo", "continuous"), [("dqn", False), ("sac", True)])
@pytest.mark.parametrize("normalize", [False, {"norm_obs": False}])
def test_hindsight_learns_from_goals(algo: str, continuous: bool, normalize: Any) -> None:
    description = env_spec.compose_spec(
        "tests.environments:BitFlipping-v0", kwargs={"continuous": continuous}
    )
    hindsight = {
        "replay_buffer_class": "HerReplayBuffer",
        "replay_buffer_kwargs": {"n_sampled_goal": 2},
        "normalize": normalize,
    }

    model: Any = algorithms.build(algo, description, OFF_POLICY | hindsight, seed=0).learn(32)

    assert isinstance(model.replay_buffer, HerReplayBuffer)
    assert model.replay_buffer.n_sampled_goal == 2
    assert type(model.policy).__name__ == "MultiInputPolicy"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"normalize": True}, (0.99, True, True)),
        ({"normalize": True, "gamma": 0.9}, (0.9, True, True)),
        ({"normalize": {"norm_reward": False}, "gamma": 0.9}, (0.9, True, False)),
        ({"normalize": {"norm_obs": False, "gamma": 0.5}, "gamma": 0.9}, (0.5, False, True)),
    ],
)
def test_normalisation_is_outermost_and_discounts_as_the_algorithm(
    given: dict[str, Any], expected: tuple[float, bool, bool], cartpole: str
) -> None:
    model = algorithms.build("a2c", cartpole, given, seed=0)

    env = model.get_env()
    assert isinstance(env, VecNormalize)
    assert (env.gamma, env.norm_obs, env.norm_reward) == expected


@pytest.mark.parametrize("normalize", [None, False])
def test_nothing_is_normalised_unless_it_is_asked_for(normalize: Any, cartpole: str) -> None:
    assert (
        algorithms.build("a2c", cartpole, {"normalize": normalize}, seed=0).get_vec_normalize_env()
        is None
    )


def test_spaces_that_start_elsewhere_are_trained_from_zero() -> None:
    description = env_spec.compose_spec("tests.environments:Shifted-v0")

    model = algorithms.build("ppo", description, TINY["ppo"], seed=0).learn(16)

    assert model.action_space == spaces.Discrete(3)
    assert model.observation_space["die"] == spaces.Discrete(6)  # type: ignore[index]
    recorded = env_spec.spec_to_json(model.get_env().get_attr("spec")[0])  # type: ignore[union-attr]  # it has one
    assert json.loads(recorded)["additional_wrappers"] == []


def test_images_are_learned_from_with_frames_stacked() -> None:
    description = env_spec.compose_spec(
        "tests.environments:Picture-v0",
        wrappers=[{"mlflow_sb3.wrappers:FrameStack": {"n_stack": 2}}],
    )

    model = algorithms.build("ppo", description, TINY["ppo"], seed=0).learn(16)

    assert isinstance(model.policy, ActorCriticCnnPolicy)
    assert model.observation_space.shape == (6, 36, 40)


def test_only_what_starts_elsewhere_is_wrapped() -> None:
    shifted, plain = gymnasium.make("tests.environments:Shifted-v0"), gymnasium.make("CartPole-v1")

    assert isinstance(algorithms.trainable(shifted), ZeroStart)
    assert algorithms.trainable(plain) is plain


def test_json_becomes_the_arguments_of_sb3(cartpole: str) -> None:
    hyperparams = {
        "n_envs": 2,
        "n_steps": 32,
        "learning_rate": "lin_0.004",
        "policy_kwargs": {"net_arch": [8], "activation_fn": "nn.ReLU"},
    }

    model = algorithms.build("ppo", cartpole, hyperparams, seed=5)

    assert isinstance(model, PPO)
    assert model.n_envs == 2
    assert [model.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == [0.004, 0.002, 0.0]
    assert model.policy_kwargs == {"net_arch": [8], "activation_fn": nn.ReLU}
    assert hyperparams["policy_kwargs"] == {"net_arch": [8], "activation_fn": "nn.ReLU"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nn.ReLU", nn.ReLU),
        ("th.nn.ReLU", nn.ReLU),
        ("ReLU", nn.ReLU),
        ("torch.optim.Adam", torch.optim.Adam),
        ("FlattenExtractor", FlattenExtractor),
        ("HerReplayBuffer", HerReplayBuffer),
        ("tests.test_algorithm:OwnExtractor", OwnExtractor),
    ],
)
def test_classes_are_found_by_their_names(name: str, found: type) -> None:
    assert find_class(name) is found


def test_a_features_extractor_of_ones_own_is_built(cartpole: str) -> None:
    kwargs = {"features_extractor_class": "tests.test_algorithm:OwnExtractor"}

    assert isinstance(
        algorithms.build(
            "a2c", cartpole, {"policy_kwargs": kwargs}, seed=0
        ).policy.features_extractor,
        OwnExtractor,
    )


def test_noise_is_named_as_in_rl_zoo3(pendulum: str) -> None:
    model = algorithms.build(
        "ddpg",
        pendulum,
        {"noise_type": "normal", "noise_std": 0.3, "train_freq": [1, "episode"]},
        seed=0,
    )

    assert isinstance(model, DDPG)
    assert isinstance(model.action_noise, NormalActionNoise)
    assert model.action_noise._sigma.tolist() == pytest.approx([0.3])


def test_what_training_uses_is_resolved_with_the_defaults_of_sb3() -> None:
    given = {
        "batch_size": 7,
        "policy_kwargs": {"net_arch": [8]},
        "normalize": {"norm_reward": False},
        "replay_buffer_class": "ReplayBuffer",
    }

    resolved = algorithms.resolve("dqn", given, BOX)

    assert resolved["batch_size"] == "7"
    assert resolved["gamma"] == "0.99"
    assert resolved["policy_kwargs"] == '{"net_arch": [8]}'
    assert resolved["normalize"] == '{"norm_reward": false}'
    assert resolved["replay_buffer_class"] == "ReplayBuffer"
    assert "seed" not in resolved
    assert "noise_std" not in algorithms.resolve("ddpg", {}, BOX)
    assert algorithms.resolve("ddpg", {"noise_type": "normal"}, BOX)["noise_std"] == "0.1"


@pytest.mark.parametrize(
    ("algo", "observations", "policy"),
    [
        ("ppo", BOX, "MlpPolicy"),
        ("ppo", spaces.Discrete(3), "MlpPolicy"),
        ("dqn", IMAGE, "CnnPolicy"),
        ("sac", spaces.Dict(a=IMAGE), "MultiInputPolicy"),
        ("ppo_lstm", BOX, "MlpLstmPolicy"),
        ("ppo_lstm", IMAGE, "CnnLstmPolicy"),
        ("ppo_lstm", spaces.Dict(a=BOX), "MultiInputLstmPolicy"),
    ],
)
def test_the_policy_is_the_one_for_the_observations(
    algo: str, observations: spaces.Space[Any], policy: str
) -> None:
    assert algorithms.resolve(algo, {}, observations)["policy"] == policy
    assert algorithms.resolve(algo, {"policy": "Given"}, observations)["policy"] == "Given"
