from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import mlflow_sb3
from mlflow_sb3.flavor import shipped_code
from mlflow_sb3.inference.agent_files import InferenceBackend

MAX_FILES = 25
PACKAGE = Path(mlflow_sb3.__file__).parent
PREDICT = """
import json, sys
sys.path[:] = [path for path in sys.path if path not in json.loads(sys.argv[2])]
forbidden = json.loads(sys.argv[3])
for name in forbidden:
    sys.modules[name] = None
import mlflow.pyfunc
import numpy as np

model = mlflow.pyfunc.load_model(sys.argv[1])
import mlflow_sb3

message = ""
for name in ("load_policy", "evaluate"):
    try:
        getattr(mlflow_sb3, name)
    except ImportError as error:
        message += f"{error}\\n"
actions = model.predict(np.zeros((2, 4))).tolist()
print(json.dumps([mlflow_sb3.__file__, actions, message]))
"""
TRAINING_PACKAGES = ["torch", "stable_baselines3", "sb3_contrib", "gymnasium", "onnx", "onnxscript"]


def save_normalized(folder: Path, inference: InferenceBackend) -> Path:
    vec_env = VecNormalize(make_vec_env("CartPole-v1", seed=0))
    model = PPO("MlpPolicy", vec_env, n_steps=64, seed=0, device="cpu").learn(64)
    mlflow_sb3.save_model(model, folder, inference=inference)
    return folder


@pytest.fixture(scope="module")
def onnx_model(saved: Path) -> Path:
    return saved


@pytest.fixture(scope="module")
def native_model(ppo: PPO, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native") / "model"
    mlflow_sb3.save_model(ppo, folder, inference="native")
    return folder


def count_files(folder: Path) -> int:
    """Count the files of a model without those that Python writes when it imports its code."""
    return sum(path.is_file() and path.suffix != ".pyc" for path in folder.rglob("*"))


def predict_in_new_process(folder: Path, forbidden: list[str]) -> tuple[str, list[int], str]:
    """Predict where no ``mlflow_sb3`` is installed, and where some packages are missing."""
    own_paths = ["", str(PACKAGE.parent)]
    arguments = [str(folder), json.dumps(own_paths), json.dumps(forbidden)]
    completed = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", PREDICT, *arguments],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    file, actions, message = json.loads(completed.stdout.splitlines()[-1])
    return file, actions, message


def test_an_onnx_model_has_few_files(onnx_model: Path) -> None:
    assert count_files(onnx_model) <= MAX_FILES


def test_a_native_model_has_few_files(native_model: Path) -> None:
    assert count_files(native_model) <= MAX_FILES


@pytest.mark.parametrize("inference", ["onnx", "native"])
def test_a_model_with_vec_normalize_has_few_files(
    inference: InferenceBackend, tmp_path: Path
) -> None:
    assert count_files(save_normalized(tmp_path / "model", inference)) <= MAX_FILES


def test_an_onnx_model_predicts_without_the_packages_for_training(onnx_model: Path) -> None:
    file, actions, _ = predict_in_new_process(onnx_model, TRAINING_PACKAGES)

    assert file == str(onnx_model / "code" / "mlflow_sb3" / "__init__.py")
    expected, _ = mlflow_sb3.load_policy(str(onnx_model)).predict(np.zeros((2, 4)))
    assert actions == expected.tolist()


@pytest.mark.process
def test_a_native_model_predicts_with_its_own_code(
    native_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")

    file, actions, _ = predict_in_new_process(native_model, [])

    assert file == str(native_model / "code" / "mlflow_sb3" / "__init__.py")
    expected, _ = mlflow_sb3.load_policy(str(native_model)).predict(np.zeros((2, 4)))
    assert actions == expected.tolist()


def test_the_code_of_a_model_says_that_it_lacks_the_public_functions(onnx_model: Path) -> None:
    _, _, message = predict_in_new_process(onnx_model, TRAINING_PACKAGES)

    remedy = "Install mlflow-sb3, and import mlflow_sb3 before you load a model."
    assert [line.endswith(remedy) for line in message.splitlines()] == [True, True]


@pytest.mark.parametrize("inference", ["onnx", "native"])
def test_every_import_of_a_shipped_module_is_shipped(inference: InferenceBackend) -> None:
    """Except for modules that only the other backend or the public functions import."""
    files = set(shipped_code.list_shipped_files(inference))
    other = "flavor/sb3_policy.py" if inference == "onnx" else "inference/onnx_policy.py"

    public = find_imports(PACKAGE / "__init__.py")
    imported = {file for name in files for file in find_imports(PACKAGE / name)}

    assert imported - files <= {*public, other}


def find_imports(path: Path) -> set[str]:
    """Return the files of the package that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mlflow_sb3"):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = {"/".join(name.split(".")[1:]) for name in names}
    modules = {f"{path}.py" for path in paths if (PACKAGE / f"{path}.py").is_file()}
    packages = {f"{path}/__init__.py" for path in paths if (PACKAGE / path).is_dir() and path}
    return modules | packages


def test_copies_are_equal_to_the_package(tmp_path: Path) -> None:
    package = shipped_code.copy_package(tmp_path, "native")

    copied = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert copied == set(shipped_code.list_shipped_files("native"))
    assert all((package / name).read_bytes() == (PACKAGE / name).read_bytes() for name in copied)
