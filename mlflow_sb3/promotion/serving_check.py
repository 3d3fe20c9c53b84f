"""Whether a version can be served: loaded as MLflow loads it, and asked what it was asked when it was logged."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.exceptions import MlflowException

from mlflow_sb3.flavor import policy_loader
from mlflow_sb3.flavor.model_writer import EXAMPLE_ACTION
from mlflow_sb3.registry import digest, integrity
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""By how much numbers may differ from one machine to another."""


def check_servable(version: Version, *, public_key: KeyPath | None = None) -> None:
    """Download a version, check its files, load it through pyfunc and compare its answer to the stored example.

    Where the example is the caller's own, it has to be answered, whatever the answer.

    Raises:
        MlflowException: It fails, or acts otherwise than when it was logged.
    """
    with integrity.fetch_version(version, public_key=public_key) as folder:
        expected = policy_loader.read_card(folder).get(EXAMPLE_ACTION)
        try:
            action = _answer(folder)
        except Exception as error:  # whatever the code that a model brings raises
            raise MlflowException.invalid_parameter_value(
                f"{version} cannot be served: {type(error).__name__}: {error}"
            ) from error
    if expected is not None and not _equal(action, np.array(expected)):
        raise MlflowException.invalid_parameter_value(
            f"{version} cannot be served: it answers its example with {action.tolist()}, and did with {expected} when it was logged; "
            "install the versions in its requirements.txt, or log it again."
        )


def _answer(folder: Path) -> Any:
    """The first action, in this process where the model brings the code that is imported here, in a new one where it brings other code."""
    if digest.model_digest(folder / "code") == _own_code():
        return np.asarray(_ask(str(folder)))
    script = f"from __future__ import annotations\n{inspect.getsource(_ask)}\nimport json, sys\nprint(json.dumps(_ask(sys.argv[1])))"
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(
        [*command, str(folder)], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return np.asarray(json.loads(done.stdout.splitlines()[-1]))


def _ask(folder: str) -> Any:
    import mlflow.pyfunc
    from mlflow.models import Model

    answer = mlflow.pyfunc.load_model(folder).predict(Model.load(folder).load_input_example(folder))
    return (answer["action"] if isinstance(answer, dict) else answer).tolist()


@cache
def _own_code() -> str:
    """The digest of ``code/`` in a model that brings this package alone, as it is now."""
    with TemporaryDirectory() as folder:
        shutil.copytree(
            Path(__file__).parents[1],
            Path(folder, "mlflow_sb3"),
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        return digest.model_digest(Path(folder))


def _equal(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, RELATIVE, ABSOLUTE)
