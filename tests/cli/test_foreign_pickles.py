"""Files that another user wrote are not unpickled without the consent of the user."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.reproduce import reproduce
from mlflow_sb3.cli.rollback import rollback
from mlflow_sb3.cli.train import train
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.digest import hash_folder
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG, VERSION_TAG, Version
from mlflow_sb3.runs import state_dir
from mlflow_sb3.runs.previous_attempt import PreviousAttempt
from mlflow_sb3.tracking import atomic_file
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.snapshot_header import FIRST_LINE
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES, SNAPSHOT_TAG
from mlflow_sb3.training.reproduce import train_again
from mlflow_sb3.training.resume import RESUMED_FROM_TAG
from mlflow_sb3.workflow.main_run import has_registered_here
from mlflow_sb3.workflow.step_runner import StepRunner
from tests.cli.commands import TINY_TRAINING, assert_fails, get_last_run, invoke, succeed
from tests.cli.test_foreign_records import log_copy
from tests.conftest import Keys
from tests.registry.model_files import get_folder
from tests.training.interrupted_runs import CONFIG, make_interrupted_run

REFUSED = "would unpickle a file, which can run any code"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that does not exist. Unpickling a hostile file creates it."""
    return tmp_path / "canary"


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def make_hostile_zip(archive: bytes, canary: Path) -> bytes:
    """Return a copy of SB3's zip file with an attribute that creates the canary."""
    payload = base64.b64encode(pickle.dumps(Payload(canary))).decode()
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "data":
                hostile = {":type:": "Payload", ":serialized:": payload}
                content = json.dumps(json.loads(content) | {"payload": hostile}).encode()
            target.writestr(name, content)
    return changed.getvalue()


def plant_model(version: Version, canary: Path) -> None:
    """Give a version a native policy that creates the canary, and a valid digest."""
    folder = get_folder(version)
    archive = folder / "agent" / "agent.zip"
    archive.write_bytes(make_hostile_zip(archive.read_bytes(), canary))
    path = folder / "agent" / "agent.json"
    values = json.loads(path.read_text()) | {"inference": "native"}
    values["digests"]["agent.zip"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    path.write_text(json.dumps(values))
    MlflowClient().set_model_version_tag(
        version.name, str(version.number), DIGEST_TAG, hash_folder(folder)
    )


@pytest.fixture
def hostile(registered: Version, canary: Path) -> Version:
    """The champion of the model `agent`, whose unpickling creates the canary."""
    plant_model(registered, canary)
    versions.set_alias("agent", "champion", 1)
    return versions.find_version("agent", number=1)


LOADS: dict[str, Callable[..., Any]] = {
    "load_policy": mlflow_sb3.load_policy,
    "load_model": mlflow_sb3.load_model,
    "pyfunc": mlflow.pyfunc.load_model,
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_loading_does_not_unpickle_the_model_of_another_user(
    load: Callable[..., Any], hostile: Version, canary: Path
) -> None:
    with pytest.raises(MlflowException, match=REFUSED):
        load(hostile.uri)

    assert not canary.exists()


@pytest.mark.parametrize("load", [mlflow_sb3.load_policy, mlflow_sb3.load_model])
def test_loading_unpickles_with_the_consent_of_the_user(
    load: Callable[..., Any], hostile: Version, canary: Path
) -> None:
    load(hostile.uri, allow_pickle=True)

    assert canary.exists()


def test_the_variable_of_mlflow_is_consent_for_a_served_model(
    hostile: Version, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")

    mlflow.pyfunc.load_model(hostile.uri)

    assert canary.exists()


FORCE = ("--alias", "other", "--rule", "force", "--reason", "a test")
STEPS: dict[str, Callable[[], Any]] = {
    "evaluate": lambda: invoke(evaluate, "--model-name", "agent", "--episodes", "1"),
    "promote": lambda: invoke(
        promote, "--model-name", "agent", "--version", "1", "--alias", "other"
    ),
    "force": lambda: invoke(promote, "--model-name", "agent", "--version", "1", *FORCE),
    "from_model": lambda: invoke(train, *TINY_TRAINING, "--from-model", "models:/agent/1"),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step_does_not_unpickle_the_model_of_another_user(
    step: Callable[[], Any], hostile: Version, canary: Path
) -> None:
    result = step()

    assert hostile.name == "agent"
    assert_fails(result, 1, REFUSED)
    assert not canary.exists()


def test_a_rollback_does_not_unpickle_the_model_of_another_user(
    store: str, ppo: PPO, canary: Path
) -> None:
    assert store
    for number in ("1", "2"):
        mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent", inference="native")
        succeed(
            promote,
            *("--model-name", "agent", "--version", number, "--allow-pickle", "true"),
            *FORCE[2:],
        )
    plant_model(versions.find_version("agent", number=1), canary)

    result = invoke(rollback, "--model-name", "agent")

    assert_fails(result, 1, REFUSED)
    assert not canary.exists()
    succeed(rollback, "--model-name", "agent", "--allow-pickle", "true")
    assert canary.exists()


def test_promote_does_not_unpickle_a_python_model_of_another_user(
    registered: Version, canary: Path
) -> None:
    folder = get_folder(registered)
    (folder / "evil.pkl").write_bytes(pickle.dumps(Payload(canary)))
    model = Model.load(str(folder))
    model.flavors["python_function"] |= {
        "loader_module": "mlflow.pyfunc.model",
        "python_model": "evil.pkl",
        "cloudpickle_version": "3.0.0",
    }
    model.save(str(folder / "MLmodel"))
    digest = hash_folder(folder)
    MlflowClient().set_model_version_tag("agent", "1", DIGEST_TAG, digest)

    result = invoke(promote, "--model-name", "agent", "--version", "1", *FORCE)

    assert_fails(result, 1, "its file MLmodel does not load the agent with")
    assert not canary.exists()


PARAMETERS = {
    "algo": "ppo",
    "timesteps": "64",
    "preset": "none",
    "hyperparams": '{"n_steps": 64}',
}
"""Parameters of the training run in the fixture `trained`."""


def plant_agent(run_id: str, canary: Path) -> str:
    """Log a copy of a training run with a hostile agent, as another user would, and return its id.

    The copy has a valid digest, and the signature of the original.
    """
    source = mlflow.get_run(run_id)
    path = mlflow.artifacts.download_artifacts(
        f"{source.info.artifact_uri}/agent", dst_path=str(canary.parent / "planted")
    )
    archive = make_hostile_zip(Path(path, "agent.zip").read_bytes(), canary)
    Path(path, "agent.zip").write_bytes(archive)
    with mlflow.start_run() as run:
        project_params = {key: shlex.quote(value) for key, value in PARAMETERS.items()}
        mlflow.log_params(source.data.params | project_params)
        mlflow.log_metrics(source.data.metrics)
        mlflow.set_tags(
            {
                DIGEST_TAG: hashlib.sha256(archive).hexdigest(),
                SIGNATURE_TAG: source.data.tags[SIGNATURE_TAG],
                "mlflow.project.entryPoint": "train",
            }
        )
        mlflow.log_artifacts(path, "agent")
    return str(run.info.run_id)


@pytest.fixture
def trained(champion: Version, tmp_path: Path) -> str:
    """Id of a training run of this machine, whose files a test may change."""
    assert tmp_path.is_dir()
    return str(MlflowClient().get_model_version(champion.name, str(champion.number)).run_id)


def test_log_model_does_not_unpickle_the_agent_of_another_user(trained: str, canary: Path) -> None:
    run_id = plant_agent(trained, canary)

    result = invoke(log_model, "--run-id", run_id)

    assert_fails(result, 1, f"Loading the agent of run {run_id} {REFUSED}")
    assert not canary.exists()
    invoke(log_model, "--run-id", run_id, "--allow-pickle", "true")
    assert canary.exists()


@pytest.mark.process
def test_main_trains_again_instead_of_reusing_the_agent_of_another_user(
    trained: str, canary: Path
) -> None:
    foreign = mlflow.get_run(plant_agent(trained, canary))
    messages: list[str] = []
    with mlflow.start_run() as run:
        attempt = PreviousAttempt("previous", [foreign])
        steps = StepRunner(run.info.run_id, attempt, FileTrust(), messages.append)

        new = steps.train(PARAMETERS, "")

    assert new.info.run_id != foreign.info.run_id
    assert new.info.status == "FINISHED"
    assert f"does not reuse run {foreign.info.run_id}" in messages[0]
    assert not canary.exists()


@pytest.fixture
def hostile_snapshot(store: str, canary: Path, tmp_path: Path) -> str:
    """Id of an interrupted run, whose uploaded snapshot creates the canary."""
    assert store
    run_id = make_interrupted_run(has_snapshot=False)
    header = {
        "step": 32,
        "learned": False,
        "context": {"asked": {}, "recipe": CONFIG.to_json(), "facts": {}},
        "n_envs": 1,
        "inexact": None,
        "statistics": None,
        "schema": 4,
    }
    path = tmp_path / SNAPSHOT_NAMES[0]
    payload = pickle.dumps(Payload(canary))
    path.write_bytes(FIRST_LINE + json.dumps(header).encode() + b"\n" + payload)
    digest = atomic_file.append_digest(path)
    client = MlflowClient()
    client.log_artifact(run_id, str(path), SNAPSHOT_DIR)
    about = {"step": 32, "learned": False, "digest": digest, "signature": "AAAA"}
    client.set_tag(run_id, f"{SNAPSHOT_TAG}{path.name}", json.dumps(about))
    return run_id


def test_resume_does_not_unpickle_the_snapshot_of_another_user(
    hostile_snapshot: str, canary: Path
) -> None:
    result = invoke(train, "--resume", hostile_snapshot)

    assert_fails(result, 1, f"Resuming run {hostile_snapshot}")
    assert REFUSED in result.stderr
    assert not canary.exists()
    invoke(train, "--resume", hostile_snapshot, "--allow-pickle", "true")
    assert canary.exists()


def test_a_planted_tag_deletes_no_folder(store: str, tmp_path: Path) -> None:
    assert store
    home = tmp_path / "home"
    home.mkdir()
    run_id = make_interrupted_run()
    MlflowClient().set_tag(run_id, RESUMED_FROM_TAG, str(home))

    resumed = succeed(train, "--resume", run_id)

    assert resumed.info.status == "FINISHED"
    assert home.exists()
    assert not state_dir.get_run_dir(run_id).exists()
    with pytest.raises(MlflowException, match="is not the id of an MLflow run"):
        state_dir.get_run_dir(str(home))


@pytest.mark.parametrize("tag", ["[]", "{}", '{"step": 1, "learned": 1}', "no JSON"])
def test_a_planted_snapshot_tag_is_no_snapshot(store: str, tag: str) -> None:
    assert store
    run_id = make_interrupted_run(has_snapshot=False)
    MlflowClient().set_tag(run_id, f"{SNAPSHOT_TAG}{SNAPSHOT_NAMES[0]}", tag)

    result = invoke(train, "--resume", run_id)

    assert_fails(result, 1, f"Run {run_id} has no complete snapshot")


def test_reproduce_does_not_unpickle_with_a_commit_that_checks_no_signature(
    tmp_path: Path, keys: Keys
) -> None:
    (tmp_path / "MLproject").write_text("name: old")
    config = replace(CONFIG, from_model="models:/agent/1")

    with pytest.raises(MlflowException, match="checks no signature before it unpickles"):
        train_again(tmp_path, config, FileTrust(public_key=str(keys.public)))


@pytest.mark.parametrize("is_signed", [False, True])
def test_log_model_does_not_take_over_the_version_of_another_user(
    trained: str, keys: Keys, is_signed: bool
) -> None:
    with mlflow.start_run() as foreign:
        pass
    MlflowClient().set_terminated(foreign.info.run_id, "FAILED")
    planted = MlflowClient().create_model_version(
        "cartpole-v1-ppo",
        versions.find_version("cartpole-v1-ppo", number=1).uri,
        run_id=trained,
        tags={
            "mlflow_sb3.inference": "onnx",
            "mlflow_sb3.image_input": "tensor",
            "mlflow.sb3.logged_by": foreign.info.run_id,
            DIGEST_TAG: "0" * 64,
        }
        | ({SIGNATURE_TAG: "AAAA"} if is_signed else {}),
    )
    options = ("--signing-key", str(keys.private)) if is_signed else ()

    run = succeed(log_model, "--run-id", trained, *options)

    assert run.data.tags["mlflow_sb3.version"] == f"cartpole-v1-ppo/{int(planted.version) + 1}"


def test_main_logs_again_instead_of_reusing_the_version_of_another_user(
    registered: Version,
) -> None:
    with mlflow.start_run() as run:
        mlflow.set_tag(VERSION_TAG, "agent/1")
    foreign = mlflow.get_run(run.info.run_id)
    assert registered.uri == "models:/agent/1"
    assert not has_registered_here(foreign, "agent", "")


@pytest.mark.parametrize("file", ["code/mlflow_sb3/__init__.py", "agent/agent.zip"])
def test_files_that_another_user_replaced_are_not_signed(
    file: str, store: str, ppo: PPO, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store
    log = Model.log

    def log_and_replace(*args: Any, **kwargs: Any) -> Any:
        info = log(*args, **kwargs)
        location = mlflow.get_logged_model(info.model_id).artifact_location
        Path(location.removeprefix("file://"), file).write_text("print('mine')")
        return info

    monkeypatch.setattr(Model, "log", log_and_replace)
    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent", signing_key=keys.private)

    with pytest.raises(MlflowException, match="agent/1 changed after registration"):
        mlflow_sb3.load_policy("models:/agent/1", public_key=keys.public)


def test_reproduce_does_not_unpickle_the_model_of_another_user(trained: str, canary: Path) -> None:
    run_id = log_copy(trained, "training.json", {"recipe": {"from_model": "models:/agent/1"}})

    result = invoke(reproduce, "--run-id", run_id)

    assert_fails(result, 1, f"The training fine-tuned models:/agent/1. Repeating it {REFUSED}")
    assert not canary.exists()


def test_a_public_key_is_consent_for_the_files_that_it_signed(
    store: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store
    run = succeed(train, *TINY_TRAINING, "--signing-key", str(keys.private))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))

    result = invoke(log_model, "--run-id", run.info.run_id)
    assert_fails(result, 1, REFUSED)

    succeed(
        log_model,
        *("--run-id", run.info.run_id, "--public-key", str(keys.public)),
        *("--signing-key", str(keys.private), "--inference", "native"),
    )
    name = "cartpole-v1-ppo"
    policy = mlflow_sb3.load_policy(f"models:/{name}/1", public_key=keys.public)
    assert policy.environment is not None
    tuned = succeed(
        train,
        *("--algo", "ppo", "--timesteps", "64", "--from-model", f"models:/{name}/1"),
        *("--public-key", str(keys.public)),
    )
    assert tuned.info.status == "FINISHED"
    assert get_last_run().info.run_id == tuned.info.run_id
