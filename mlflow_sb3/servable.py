"""Whether a version can be served: loaded as MLflow loads it, and asked what it was asked when it was logged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mlflow_sb3 import flavor, registry
from mlflow_sb3.agent import EXAMPLE_ACTION
from mlflow_sb3.registry import Version

if TYPE_CHECKING:
    from mlflow_sb3.signing import KeyPath

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""By how much numbers may differ from one machine to another."""


def check(version: Version, *, public_key: KeyPath | None = None) -> None:
    """Download a version, check its files, load it through pyfunc and compare its answer to the stored example.

    Raises:
        MlflowException: It fails, or acts otherwise than when it was logged.
    """
    with registry.fetch(version, public_key=public_key) as folder:
        expected = flavor.read_card(folder).get(EXAMPLE_ACTION)
        try:
            action = _answer(folder)
        except Exception as error:  # whatever the code that a model brings raises
            raise MlflowException.invalid_parameter_value(f"{version} cannot be served: {type(error).__name__}: {error}") from error
    if expected is not None and not _equal(action, np.array(expected)):
        raise MlflowException.invalid_parameter_value(
            f"{version} cannot be served: it answers its example with {action.tolist()}, and did with {expected} when it was logged; "
            "install the versions in its requirements.txt, or log it again."
        )


def _answer(folder: Path) -> Any:
    request = Model.load(str(folder)).load_input_example(str(folder))
    answer = mlflow.pyfunc.load_model(str(folder)).predict(request)
    return np.asarray(answer["action"] if isinstance(answer, dict) else answer)


def _equal(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, RELATIVE, ABSOLUTE)
