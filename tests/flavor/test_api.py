from __future__ import annotations

import inspect
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import mlflow
import mlflow.xgboost
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor

import mlflow_sb3
from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import onnx_export, source_env
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.registry import integrity, signing, versions
from tests.conftest import Keys

AGENTS: list[tuple[type[BaseAlgorithm], str, dict[str, Any]]] = [
    (DQN, "CartPole-v1", {"learning_starts": 10}),
    (PPO, "CartPole-v1", {"n_steps": 64}),
    (A2C, "CartPole-v1", {}),
    (A2C, "Pendulum-v1", {"policy_kwargs": {"squash_output": False}}),
    (PPO, "Pendulum-v1", {"n_steps": 64, "use_sde": True}),
    (
        PPO,
        "MountainCarContinuous-v0",
        {"n_steps": 64, "policy_kwargs": {"activation_fn": torch.nn.ELU}},
    ),
    (SAC, "Pendulum-v1", {"learning_starts": 10}),
    (SAC, "Pendulum-v1", {"learning_starts": 10, "use_sde": True}),
    (TD3, "Pendulum-v1", {"learning_starts": 10}),
    (DDPG, "MountainCarContinuous-v0", {"learning_starts": 10}),
]


@pytest.fixture(
    scope="module",
    params=AGENTS,
    ids=lambda agent: f"{agent[0].__name__}-{agent[1]}-{'-'.join(agent[2])}",
)
def trained_and_loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BaseAlgorithm, OnnxPolicy]:
    cls, env_id, arguments = request.param
    model = cls("MlpPolicy", env_id, seed=0, device="cpu", **arguments).learn(64)
    folder = tmp_path_factory.mktemp("agent") / "model"
    mlflow_sb3.save_model(model, folder)
    return model, OnnxPolicy.load(folder / "agent")


def observations(model: BaseAlgorithm, count: int) -> np.ndarray[Any, Any]:
    model.observation_space.seed(7)
    return np.stack([model.observation_space.sample() for _ in range(count)])


@pytest.mark.parametrize("batch", [1, 7, 64, 256])
def test_actions_are_those_of_sb3(
    trained_and_loaded: tuple[BaseAlgorithm, OnnxPolicy], batch: int
) -> None:
    model, policy = trained_and_loaded
    expected, _ = model.predict(observations(model, batch), deterministic=True)

    actions, state = policy.predict(observations(model, batch))

    assert state is None
    assert actions.dtype == model.action_space.dtype
    assert actions.shape == expected.shape
    if isinstance(model.action_space, gymnasium.spaces.Box):
        extent = model.action_space.high - model.action_space.low
        assert np.abs((actions - expected) / extent).max() <= 1e-5
    else:
        assert actions.tolist() == expected.tolist()


def test_one_observation_gives_one_action(
    trained_and_loaded: tuple[BaseAlgorithm, OnnxPolicy],
) -> None:
    model, policy = trained_and_loaded
    one = observations(model, 1)[0]

    action, _ = policy.predict(one)

    assert action.shape == model.action_space.shape
    assert model.action_space.contains(action if action.shape else action.item())
    assert action.tolist() == pytest.approx(
        model.predict(one, deterministic=True)[0].tolist(), abs=1e-4
    )


def test_the_card_records_how_well_the_graph_agrees(
    trained_and_loaded: tuple[BaseAlgorithm, OnnxPolicy],
) -> None:
    parity = trained_and_loaded[1].card["parity"]

    assert parity["observations"] == 512
    assert parity["observations_from_episodes"] == 256
    assert parity["max_difference"] <= 1e-5


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros((2, 4), dtype=np.float32),
        np.zeros((2, 4), dtype=np.float64),
        np.zeros((2, 4), dtype=np.int64),
        [[0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]],
        pd.DataFrame(np.zeros((2, 4))),
    ],
    ids=["float32", "float64", "int64", "lists", "DataFrame"],
)
def test_a_policy_takes_what_people_have(observation: Any, saved: Path) -> None:
    actions, _ = mlflow_sb3.load_policy(str(saved)).predict(observation)

    assert actions.shape == (2,)
    assert actions[0] == actions[1]


@pytest.mark.parametrize(
    ("observation", "says"),
    [
        (
            np.zeros((1, 3)),
            r"observation has the shape \(1, 3\); expected \(4\) for one or \(n, 4\) for many, of float32",
        ),
        (np.zeros(3), r"observation has the shape \(3,\)"),
        (np.zeros((1, 1, 4)), r"observation has the shape \(1, 1, 4\)"),
        (0.0, r"observation has the shape \(\)"),
        ([["a", "b", "c", "d"]], "observation has the dtype <U1; expected"),
        (np.array([[0, 0, None, 0]]), "observation has the dtype object"),
        ([[0.0, np.nan, 0.0, 0.0]], "observation contains NaN"),
    ],
)
def test_wrong_observations_are_refused_with_what_is_expected(
    observation: Any, says: str, saved: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        mlflow_sb3.load_policy(str(saved)).predict(observation)


def test_pyfunc_answers_arrays_and_frames_with_actions_that_step(saved: Path) -> None:
    model, env = mlflow.pyfunc.load_model(str(saved)), gymnasium.make("CartPole-v1")
    env.reset(seed=0)

    for batch in (np.array([[0.0, 0.0, 0.0, 0.0]]), pd.DataFrame(np.zeros((1, 4)))):
        actions = model.predict(batch)
        assert isinstance(actions, np.ndarray)
        env.step(actions[0])
    assert isinstance(model.get_raw_model(), OnnxPolicy)


@pytest.mark.parametrize(
    "batch", [np.zeros((1, 3)), np.full((1, 4), np.nan), np.zeros((1, 4), dtype=np.float32)]
)
def test_pyfunc_refuses_wrong_observations(batch: Any, saved: Path) -> None:
    with pytest.raises(
        MlflowException, match=r"contains NaN|does not match expected|not match|incompatible"
    ):
        mlflow.pyfunc.load_model(str(saved)).predict(batch)


def test_threads_share_a_policy(saved: Path) -> None:
    policy = mlflow_sb3.load_policy(str(saved))
    batch = np.random.default_rng(0).normal(size=(64, 4))
    expected = policy.predict(batch)[0].tolist()
    answers: list[list[int]] = []

    threads = [
        threading.Thread(
            target=lambda: answers.extend(policy.predict(batch)[0].tolist() for _ in range(50))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [expected] * 200


def test_the_layout_is_the_documented_one(saved: Path) -> None:
    files = {
        path.relative_to(saved).as_posix()
        for path in saved.rglob("*")
        if path.is_file() and "mlflow_sb3" not in path.parts
    }

    assert files == {
        "MLmodel",
        "requirements.txt",
        "python_env.yaml",
        "conda.yaml",
        "input_example.json",
        "serving_input_example.json",
        "agent/policy.onnx",
        "agent/agent.json",
        "agent/agent.zip",
    }
    assert (saved / "code" / "mlflow_sb3" / "flavor.py").exists()
    assert set(Model.load(str(saved)).flavors) == {"stable_baselines3", "python_function"}


def test_a_model_requires_neither_torch_nor_sb3(saved: Path) -> None:
    names = [
        line.partition("==")[0] for line in (saved / "requirements.txt").read_text().splitlines()
    ]

    assert names == ["mlflow", "numpy", "onnxruntime"]
    assert mlflow_sb3.get_default_pip_requirements()[2] == f"onnxruntime=={onnxruntime.__version__}"


def test_the_signature_is_that_of_the_spaces(saved: Path) -> None:
    signature = Model.load(str(saved)).signature

    assert signature.inputs == Schema([TensorSpec(np.dtype(np.float64), (-1, 4))])
    assert signature.outputs == Schema([TensorSpec(np.dtype(np.int64), (-1,))])


def test_the_arguments_of_saving_are_honoured(
    ppo: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper.py").write_text("answer = 42\n")
    for name in ("uv.lock", "pyproject.toml"):
        (tmp_path / name).write_text("[project]\nname = 'elsewhere'\nversion = '1'\n")
    monkeypatch.chdir(tmp_path)
    inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, 4))])

    mlflow_sb3.save_model(
        ppo,
        tmp_path / "model",
        code_paths=[str(tmp_path / "helper.py")],
        signature=ModelSignature(inputs),
        input_example=np.ones((1, 4), dtype=np.float32),
        extra_pip_requirements=["pandas"],
        metadata={"team": "red"},
    )

    model = Model.load(str(tmp_path / "model"))
    assert model.signature.inputs == inputs
    assert model.metadata == {"team": "red"}
    assert json.loads((tmp_path / "model" / "input_example.json").read_text()) == [
        [1.0, 1.0, 1.0, 1.0]
    ]
    assert (tmp_path / "model" / "code" / "helper.py").exists()
    assert "pandas" in (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    assert not (tmp_path / "model" / "uv.lock").exists()
    assert mlflow_sb3.load_policy(str(tmp_path / "model")).predict(np.zeros(4))[0].shape == ()


def test_requirements_can_be_given_whole(ppo: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(ppo, tmp_path / "model", pip_requirements=["mlflow", "onnxruntime"])

    assert (tmp_path / "model" / "requirements.txt").read_text().split() == [
        "mlflow",
        "onnxruntime",
    ]


def test_the_flavor_has_the_arguments_of_mlflows_flavors() -> None:
    only_xgboost = {"xgb_model", "model_format", "extra_files", "kwargs"}
    theirs = [
        set(inspect.signature(function).parameters) - only_xgboost
        for function in (mlflow.xgboost.save_model, mlflow.xgboost.log_model)
    ]
    ours = [
        set(inspect.signature(function).parameters)
        for function in (mlflow_sb3.save_model, mlflow_sb3.log_model)
    ]

    assert [wanted - have for wanted, have in zip(theirs, ours, strict=True)] == [set(), set()]


@pytest.mark.usefixtures("store")
def test_logging_uses_the_active_run_and_registers(ppo: PPO) -> None:
    with mlflow.start_run() as run:
        info = mlflow_sb3.log_model(
            ppo,
            name="agent",
            registered_model_name="mine",
            tags={"a": "b"},
            params={"p": 1},
            step=3,
        )

    logged = mlflow.get_logged_model(info.model_id)
    assert logged.source_run_id == run.info.run_id
    assert (logged.name, logged.params["p"], logged.tags["a"]) == ("agent", "1", "b")
    assert info.registered_model_version == 1
    assert mlflow.MlflowClient().get_model_version("mine", "1").tags["mlflow_sb3.digest"]


@pytest.mark.usefixtures("store")
def test_a_version_is_signed_when_it_is_logged(ppo: PPO, keys: Keys) -> None:
    mlflow_sb3.log_model(
        ppo, name="agent", registered_model_name="mine", signing_key=str(keys.private)
    )

    version = versions.find_version("mine", number=1)
    assert signing.verify(str(version.digest), str(version.signature), keys.public)
    model = mlflow_sb3.load_model("models:/mine/1", public_key=str(keys.public), device="cpu")
    assert model.num_timesteps == ppo.num_timesteps


@pytest.mark.parametrize(
    ("key", "name", "says"),
    [
        (
            "private",
            None,
            r"signs a registered version, and none is registered; give registered_model_name too",
        ),
        ("public", "mine", r"private key '.*public\.pem' is a public key; give one that"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_cannot_be_signed_is_refused_and_nothing_is_logged(
    key: str, name: str | None, says: str, ppo: PPO, keys: Keys
) -> None:
    with pytest.raises(MlflowException, match=says):
        mlflow_sb3.log_model(
            ppo, name="agent", registered_model_name=name, signing_key=getattr(keys, key)
        )

    assert mlflow.search_logged_models(output_format="list") == []
    assert mlflow.MlflowClient().search_registered_models() == []


def test_the_algorithm_comes_back_to_go_on_training(ppo: PPO, saved: Path, tmp_path: Path) -> None:
    again = mlflow_sb3.load_model(
        str(saved), dst_path=str(tmp_path), env=ppo.get_env(), device="cpu"
    )

    batch = observations(ppo, 64)
    assert (
        again.predict(batch, deterministic=True)[0].tolist()
        == ppo.predict(batch, deterministic=True)[0].tolist()
    )
    assert again.learn(64, reset_num_timesteps=False).num_timesteps == 128
    assert (tmp_path / "MLmodel").exists()


def test_where_unpickling_is_forbidden_agents_act_and_do_not_train(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    assert mlflow_sb3.load_policy(str(saved)).predict(np.zeros(4))[0].shape == ()
    assert len(mlflow.pyfunc.load_model(str(saved)).predict(np.zeros((1, 4)))) == 1
    with pytest.raises(
        MlflowException, match="would unpickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false"
    ):
        mlflow_sb3.load_model(str(saved))


@pytest.mark.parametrize("name", ["policy.onnx", "agent.zip"])
def test_a_damaged_file_is_refused_outside_of_a_registry_too(
    name: str, ppo: PPO, tmp_path: Path
) -> None:
    mlflow_sb3.save_model(ppo, tmp_path / "model")
    file = tmp_path / "model" / "agent" / name
    file.write_bytes(file.read_bytes() + b"\0")
    load = mlflow_sb3.load_policy if name == "policy.onnx" else mlflow_sb3.load_model

    with pytest.raises(MlflowException, match="has changed"):
        load(str(tmp_path / "model"))


class Unexportable(FlattenExtractor):
    """Does what depends on the values of a tensor."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations if observations.sum() > 0 else -observations


@pytest.fixture(scope="module")
def unexportable() -> PPO:
    return PPO(
        "MlpPolicy",
        "CartPole-v1",
        policy_kwargs={"features_extractor_class": Unexportable},
        device="cpu",
        seed=0,
    )


@pytest.mark.usefixtures("store")
def test_what_cannot_be_exported_is_refused_and_nothing_is_logged(unexportable: PPO) -> None:
    with (
        mlflow.start_run(),
        pytest.raises(MlflowException, match="cannot be exported to ONNX: Unexportable"),
    ):
        mlflow_sb3.log_model(unexportable, name="agent", registered_model_name="agent")

    assert mlflow.search_logged_models(output_format="list") == []
    assert mlflow.MlflowClient().search_registered_models() == []


@pytest.mark.usefixtures("store")
def test_native_inference_acts_by_sb3_itself_and_is_tagged(unexportable: PPO) -> None:
    info = mlflow_sb3.log_model(unexportable, name="agent", inference="native")

    batch = observations(unexportable, 8)
    expected, _ = unexportable.predict(batch, deterministic=True)
    policy = mlflow_sb3.load_policy(info.model_uri)
    assert policy.predict(batch)[0].tolist() == expected.tolist()
    assert (
        mlflow.pyfunc.load_model(info.model_uri).predict(batch.astype(np.float64)).tolist()
        == expected.tolist()
    )
    assert mlflow.get_logged_model(info.model_id).tags["mlflow_sb3.inference"] == "native"
    with integrity.fetch_uri(info.model_uri) as folder:
        assert "stable-baselines3==" in (folder / "requirements.txt").read_text()
    with pytest.raises(ValueError, match=r"observation has the shape \(1, 3\)"):
        policy.predict(np.zeros((1, 3)))


def test_native_inference_takes_an_agent_whose_buffer_saved_memory(tmp_path: Path) -> None:
    saving: dict[str, Any] = {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    }
    model = algorithms.build(
        "dqn", env_spec.compose_spec("CartPole-v1"), saving | {"buffer_size": 100}, seed=0
    )

    mlflow_sb3.save_model(model, tmp_path / "model", inference="native")

    assert mlflow_sb3.load_policy(str(tmp_path / "model")).predict(np.zeros(4))[0] in (0, 1)


def test_native_inference_answers_many_threads(unexportable: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(unexportable, tmp_path / "model", inference="native")
    policy = mlflow_sb3.load_policy(str(tmp_path / "model"))
    batches = [observations(unexportable, size) * size for size in range(1, 9)] * 50
    expected = [policy.predict(batch)[0].tolist() for batch in batches]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda batch: policy.predict(batch)[0].tolist(), batches))

    assert answers == expected


def test_native_requirements_can_be_installed_anywhere(unexportable: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(unexportable, tmp_path / "model", inference="native")

    requirements = (tmp_path / "model" / "requirements.txt").read_text()

    assert "torch==" in requirements
    assert "+" not in requirements


def test_native_inference_is_refused_where_unpickling_is_forbidden(
    unexportable: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow_sb3.save_model(unexportable, tmp_path / "model", inference="native")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with pytest.raises(MlflowException, match="inference=native would unpickle"):
        mlflow_sb3.save_model(unexportable, tmp_path / "another", inference="native")
    for load in (mlflow_sb3.load_policy, mlflow.pyfunc.load_model):
        with pytest.raises(MlflowException, match="inference=native would unpickle"):
            load(str(tmp_path / "model"))
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_graph_that_differs_from_sb3_is_refused(env_id: str) -> None:
    model, other = (PPO("MlpPolicy", env_id, seed=seed, device="cpu") for seed in (0, 1))
    policy = onnx_export.export_policy(model, source_env.find_source_env(model)).policy

    with pytest.raises(
        MlflowException,
        match=r"the exported graph differs from stable_baselines3 by .*; nothing was saved",
    ):
        onnx_export.check_parity(
            other,
            policy,
            source_env.find_source_env(other),
            onnx_export.ParityInputs(observations(other, 256), 0),
        )


def test_the_callers_model_stays_as_it_was(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu").learn(64)
    weights = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.policy.set_training_mode(True)
    states = (torch.get_rng_state(), str(np.random.get_state()))

    mlflow_sb3.save_model(model, tmp_path / "model")

    assert all(
        torch.equal(value, weights[name]) for name, value in model.policy.state_dict().items()
    )
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == states[1]
    assert torch.distributions.Distribution._validate_args


def test_a_model_without_an_environment_is_checked_on_sampled_observations(
    ppo: PPO, tmp_path: Path
) -> None:
    ppo.save(tmp_path / "agent.zip")

    mlflow_sb3.save_model(PPO.load(tmp_path / "agent.zip", device="cpu"), tmp_path / "model")

    policy = mlflow_sb3.load_policy(str(tmp_path / "model"))
    assert policy.environment is None
    assert policy.card["parity"]["observations_from_episodes"] == 0
    assert policy.card["parity"]["observations"] == 256
