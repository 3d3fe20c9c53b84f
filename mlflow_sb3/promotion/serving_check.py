"""Check that a model version can be served: load it and predict the action for its example."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import env_vars
from mlflow_sb3.flavor import policy_loader, shipped_code
from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import InferenceBackend
from mlflow_sb3.registry import digest, integrity, loader
from mlflow_sb3.registry.loader import CODE_DIR
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath

RELATIVE_TOLERANCE = 1e-4
"""Relative difference of actions that is allowed between two machines."""
ABSOLUTE_TOLERANCE = 1e-5
"""Absolute difference of actions that is allowed between two machines."""


def check_servable(
    version: Version, *, public_key: KeyPath | None = None, allow_pickle: bool = False
) -> None:
    """Check that a version can be loaded through ``mlflow.pyfunc`` and predicts the stored action.

    ``log_model`` stores the expected action only for the input example that it creates itself. If
    the user passed an input example, this function only checks that the prediction succeeds.

    Args:
        version: Model version with a digest.
        public_key: Public key that must have signed the version.
        allow_pickle: As in ``registered_agent.load_agent``.

    Raises:
        MlflowException: The files have changed, the key did not sign the version, the version
            cannot be loaded, must not be unpickled, or predicts another action than when it was
            logged.
    """
    with integrity.fetch_version(version, public_key=public_key) as folder:
        info = policy_loader.read_agent_info(folder)
        loader.check_loader(str(version), folder)
        variables = {}
        if info.inference == "native":
            agent_files.check_unpickling_allowed(
                f"Loading {version}, which has inference=native,",
                is_trusted=allow_pickle or public_key is not None,
            )
            variables = {MLFLOW_ALLOW_PICKLE_DESERIALIZATION.name: "true"}
        try:
            with env_vars.override_env(variables):
                action = _predict_example(folder, info.inference)
        except Exception as error:  # the code of a model can raise anything
            raise MlflowException.invalid_parameter_value(
                f"{version} cannot be served: {type(error).__name__}: {str(error).rstrip('.')}. "
                "Install the package versions in its requirements.txt, or log it again."
            ) from error
    expected = None if info.example_action is None else np.array(info.example_action)
    if expected is not None and not _is_close(action, expected):
        raise MlflowException.invalid_parameter_value(
            f"{version} cannot be served: it predicts {action.tolist()} for its input example, but "
            f"predicted {expected.tolist()} when it was logged. Install the package versions in "
            "its requirements.txt, or log it again."
        )


def _predict_example(folder: Path, inference: InferenceBackend) -> Any:
    """Return the action for the input example of a model.

    If the code in the model differs from this package, predict in a new process, because one
    process cannot import both.
    """
    if digest.hash_folder(folder / CODE_DIR) == _hash_shipped_code(inference):
        return np.asarray(_load_and_predict(str(folder)))
    return np.asarray(_predict_in_new_process(folder))


def _load_and_predict(folder: str) -> Any:
    import mlflow.pyfunc
    from mlflow.models import Model

    example = Model.load(folder).load_input_example(folder)
    answer = mlflow.pyfunc.load_model(folder).predict(example)
    return (answer["action"] if isinstance(answer, dict) else answer).tolist()


def _predict_in_new_process(folder: Path) -> Any:
    script = (
        "from __future__ import annotations\n"
        f"{inspect.getsource(_load_and_predict)}\n"
        "import json, sys\n"
        "print(json.dumps(_load_and_predict(sys.argv[1])))"
    )
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        code = f"its process ended with the exit code {completed.returncode}"
        raise RuntimeError((completed.stderr.strip().splitlines() or [code])[-1])
    return json.loads(completed.stdout.splitlines()[-1])


@cache
def _hash_shipped_code(inference: InferenceBackend) -> str:
    """Return the digest of the code folder that this package would log."""
    with TemporaryDirectory() as folder:
        shipped_code.copy_package(Path(folder), inference)
        return digest.hash_folder(Path(folder))


def _is_close(action: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    return action.shape == expected.shape and np.allclose(
        action, expected, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE
    )
