from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import entry_points, env_spec

CARTPOLE = gymnasium.spec("CartPole-v1")
CANARY_MODULE = """
from pathlib import Path
Path(__file__).with_suffix(".imported").touch()
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
def make(env=None):
    Path(__file__).with_suffix(".called").touch()
    return CartPoleEnv() if env is None else env
class Maze(CartPoleEnv):
    pass
"""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module on the import path, outside of the project. It leaves a file when it is imported."""
    module = tmp_path / "canary_module.py"
    module.write_text(CANARY_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "")
    yield module
    sys.modules.pop("canary_module", None)  # an imported module would be trusted in other tests


def describe(entry_point: str, *wrappers: str) -> EnvSpec:
    specs = tuple(WrapperSpec("a wrapper", wrapper, {}) for wrapper in wrappers)
    return EnvSpec("Strange-v0", entry_point, additional_wrappers=specs)


@pytest.mark.parametrize(
    "spec",
    [
        describe("os:system"),
        describe("subprocess:Popen"),
        describe("canary_module:Maze"),
        describe("canary_module:make"),
        describe("tests.environments:Nothing"),
        describe("torch.hub:load"),
        describe("gymnasium:make"),
        describe("mlflow.__main__:cli"),
        describe("gymnasium.envs.classic_control:CartPoleEnv", "torch.hub:load"),
        describe("gymnasium.envs.classic_control:CartPoleEnv", "canary_module:make"),
        describe("gymnasium.envs.classic_control:CartPoleEnv", "os:system"),
        EnvSpec("CartPole-v1", "os:system"),
    ],
    ids=lambda spec: (
        f"{spec.entry_point} {[each.entry_point for each in spec.additional_wrappers]}"
    ),
)
def test_a_stored_spec_imports_and_calls_only_environments_and_wrappers(
    spec: EnvSpec, canary: Path
) -> None:
    with pytest.raises(
        MlflowException, match=r"is not (imported|called), because|cannot be imported"
    ):
        env_spec.make_from_spec(spec.to_json())

    assert list(canary.parent.glob("canary_module.*ed")) == []


def test_the_message_names_the_variable_that_trusts_a_module(
    canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = describe("canary_module:make", "canary_module:make")
    with pytest.raises(MlflowException, match="set MLFLOW_SB3_TRUSTED_MODULES=canary_module"):
        entry_points.check_spec(spec)

    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "other, canary_module")

    env_spec.make_from_spec(spec.to_json()).close()
    assert canary.with_suffix(".called").exists()


def test_a_function_that_the_user_named_is_trusted_but_no_other(canary: Path) -> None:
    entry_points.trust_options("CartPole-v1", ["canary_module:make"])

    entry_points.check_spec(describe("canary_module:make"))
    for other in ("canary_module:Path", "canary_module:gymnasium"):
        with pytest.raises(MlflowException, match=f"{other} is not called"):
            entry_points.check_spec(describe(other))


def test_the_module_of_an_id_that_the_user_named_may_have_environments(canary: Path) -> None:
    entry_points.trust_options("canary_module:Maze-v0")

    entry_points.check_spec(describe("canary_module:Maze"))
    with pytest.raises(MlflowException, match="canary_module:make is not called"):
        entry_points.check_spec(describe("canary_module:make"))


def test_what_the_named_module_registers_is_trusted_in_later_steps(canary: Path) -> None:
    canary.write_text(CANARY_MODULE + "gymnasium.register('Maze-v0', 'canary_envs.maze:make')\n")
    package = canary.parent / "canary_envs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "maze.py").write_text(CANARY_MODULE)

    entry_points.trust_options("canary_module:Maze-v0")

    del gymnasium.registry["Maze-v0"]  # as in a new process
    entry_points.check_spec(describe("canary_envs.maze:make"))
    with pytest.raises(MlflowException, match=r"canary_envs\.maze:Path is not called"):
        entry_points.check_spec(describe("canary_envs.maze:Path"))


def test_a_trusted_module_may_have_submodules_but_not_functions_of_other_modules(
    canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary.write_text(CANARY_MODULE + "from subprocess import run\n")
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "canary_module")

    entry_points.check_module("canary_module.part:Maze")
    with pytest.raises(MlflowException, match="canary_module:run is not called"):
        entry_points.check_spec(describe("canary_module:run"))


def test_a_class_of_a_module_that_is_imported_already_is_trusted(canary: Path) -> None:
    __import__(canary.stem)

    entry_points.check_spec(describe("canary_module:Maze"))
    with pytest.raises(MlflowException, match=r"canary_module:make is not called, because"):
        entry_points.check_spec(describe("canary_module:make"))


def test_what_the_registry_of_gymnasium_has_under_the_id_is_called(
    canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    __import__(canary.stem)
    spec = describe("canary_module:make")
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)

    entry_points.check_spec(spec)


def test_environments_of_gymnasium_and_of_this_project_are_trusted() -> None:
    entry_points.check_spec(CARTPOLE)
    entry_points.check_spec(describe("tests.environments:Levels"))
    entry_points.check_spec(describe(str(CARTPOLE.entry_point), "mlflow_sb3.wrappers:FrameStack"))
