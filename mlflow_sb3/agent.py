"""An agent as the files of an MLflow model: the graph that acts, SB3's archive, and the card that describes them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlflow.pyfunc
import numpy as np
from mlflow.environment_variables import MLFLOW_UV_AUTO_DETECT
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from mlflow_sb3 import settings
from mlflow_sb3.policy import CARD, GRAPH, OnnxPolicy, Space

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

FLAVOR_NAME = "stable_baselines3"
AGENT = "agent"
ARCHIVE = "agent.zip"

_ACTS_WITH = ("mlflow", "numpy", "onnxruntime")
_LEARNS_WITH = ("stable_baselines3", "torch", "gymnasium", "onnx")


def get_default_pip_requirements() -> list[str]:
    """What a saved agent needs to act, pinned to the installed versions."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in _ACTS_WITH]


def prepare(model: BaseAlgorithm, environment: str | None) -> Agent:
    """Export an algorithm and check it; nothing is written yet.

    Args:
        model: Is not changed.
        environment: ``EnvSpec`` JSON; taken from the model's environment when None.

    Raises:
        MlflowException: The model is not supported yet, or its export does not agree with SB3.
    """
    from mlflow_sb3 import export

    export.check_supported(model)
    environment = environment or export.described(model)
    exported = export.export(model, environment)
    archive = io.BytesIO()
    model.save(archive)
    files = {GRAPH: exported.graph, ARCHIVE: archive.getvalue()}
    card = {
        "algorithm": f"{type(model).__module__}.{type(model).__name__}",
        "observation_space": asdict(exported.policy.observation_space),
        "action_space": asdict(exported.policy.action_space),
        "environment": None if environment is None else json.loads(environment),
        "versions": {name: importlib.metadata.version(name) for name in (*_ACTS_WITH, *_LEARNS_WITH)},
        "parity": asdict(exported.parity),
        "digests": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return Agent(card, files, _signature(exported.policy), exported.example)


@dataclass(frozen=True)
class Agent:
    """An agent, exported and checked. ``Model.log`` takes it in place of a flavor's module, for its ``save_model``."""

    card: dict[str, Any]
    files: dict[str, bytes]
    signature: ModelSignature
    example: NDArray[Any]

    def save_model(
        self,
        path: str | os.PathLike[str],
        *,
        conda_env: dict[str, Any] | str | None = None,
        code_paths: list[str] | None = None,
        mlflow_model: Model | None = None,
        signature: ModelSignature | Literal[False] | None = None,
        input_example: Any = None,
        pip_requirements: list[str] | str | None = None,
        extra_pip_requirements: list[str] | str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Write the model's folder; the arguments are those of ``mlflow_sb3.save_model``."""
        folder = Path(path)
        mlflow_model = Model() if mlflow_model is None else mlflow_model
        mlflow_model.add_flavor(FLAVOR_NAME, data=AGENT, code="code", algorithm=self.card["algorithm"], **self.card["versions"])
        if conda_env is None and pip_requirements is None:
            pip_requirements = [*get_default_pip_requirements(), *_listed(extra_pip_requirements)]
            extra_pip_requirements = None
        with settings.during(
            {MLFLOW_UV_AUTO_DETECT.name: "false"}
        ):  # MLflow 3.17 copies a uv.lock from the working folder, and uv then installs that
            mlflow.pyfunc.save_model(
                folder,
                loader_module="mlflow_sb3.flavor",
                code_paths=[str(Path(__file__).parent), *(code_paths or [])],
                conda_env=conda_env,
                mlflow_model=mlflow_model,
                signature=self.signature if signature is None else signature,
                input_example=self.example.astype(_input_dtype(self.example.dtype)) if input_example is None else input_example,
                pip_requirements=pip_requirements,
                extra_pip_requirements=extra_pip_requirements,
                metadata=metadata,
            )
        (folder / AGENT).mkdir()
        (folder / AGENT / CARD).write_text(json.dumps(self.card, indent=2))
        for name, content in self.files.items():
            (folder / AGENT / name).write_bytes(content)
        mlflow_model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        mlflow_model.save(str(folder / "MLmodel"))


def _signature(policy: OnnxPolicy) -> ModelSignature:
    observation, action = policy.observation_space, policy.action_space
    return ModelSignature(_schema(_input_dtype(np.dtype(observation.dtype)), observation), _schema(np.dtype(action.dtype), action))


def _schema(dtype: np.dtype[Any], space: Space) -> Schema:
    return Schema([TensorSpec(dtype, (-1, *space.shape))])


def _input_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """MLflow takes one dtype: float64 for floats, which is what JSON, DataFrames and plain numpy arrays bring."""
    return np.dtype(np.float64) if dtype.kind == "f" else dtype


def _listed(requirements: list[str] | str | None) -> list[str]:
    """Requirements as a list; text is the path of a requirements file, as in MLflow's flavors."""
    return [f"-r {requirements}"] if isinstance(requirements, str) else list(requirements or [])
