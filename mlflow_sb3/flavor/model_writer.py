"""An agent as the files of an MLflow model: the graph that acts, SB3's archive, and the card that describes them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlflow.pyfunc
import numpy as np
from mlflow.environment_variables import MLFLOW_UV_AUTO_DETECT
from mlflow.models import Model, ModelSignature

from mlflow_sb3.client import env_vars
from mlflow_sb3.inference import agent_files, pyfunc
from mlflow_sb3.inference.agent_files import (
    AGENT_DIR,
    AGENT_JSON,
    AGENT_ZIP,
    POLICY_ONNX,
    VEC_NORMALIZE_JSON,
)
from mlflow_sb3.inference.pyfunc import ImageInput

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.inference.batching import Observations
    from mlflow_sb3.inference.policy_inputs import PolicyInputs
    from mlflow_sb3.inference.policy_protocol import Policy

FLAVOR_NAME = "stable_baselines3"
EXAMPLE_ACTION = "example_action"
"""Key of the card: what the agent does with the model's input example, None where that is the caller's own."""
INFERENCE_TAG = "mlflow_sb3.inference"
"""Tag of a model: by what it acts."""

_ACTS_WITH = ("mlflow", "numpy", "onnxruntime")
_LEARNS_WITH = ("stable_baselines3", "sb3_contrib", "torch", "gymnasium", "onnx")
_ACTS_NATIVELY_WITH = (*_ACTS_WITH, "stable_baselines3", "sb3_contrib", "torch", "gymnasium")

InferenceBackend = Literal["onnx", "native"]


def get_default_pip_requirements(inference: InferenceBackend = "onnx") -> list[str]:
    """What a saved agent needs to act, pinned to the installed versions."""
    names = _ACTS_WITH if inference == "onnx" else _ACTS_NATIVELY_WITH
    return [
        f"{name.replace('_', '-')}=={importlib.metadata.version(name).partition('+')[0]}"
        for name in names
    ]


def prepare_model(
    model: BaseAlgorithm,
    environment: str | None,
    *,
    inference: InferenceBackend = "onnx",
    image_input: ImageInput = "tensor",
) -> PreparedModel:
    """Export an algorithm and check it; nothing is written yet.

    Args:
        model: Is not changed.
        environment: ``EnvSpec`` JSON; taken from the model's environment when None.
        inference: ``"native"`` exports nothing: what acts is SB3's own file, which has to be unpickled.
        image_input: See ``pyfunc.make_signature``.

    Raises:
        MlflowException: It is no SB3 algorithm, its export fails or does not agree with SB3, or native inference is forbidden.
    """
    from mlflow_sb3.envs import spaces
    from mlflow_sb3.flavor import onnx_export, sb3_policy, source_env, vec_normalize

    source_env.check_algorithm(model)
    source = source_env.find_source_env(model, environment)
    files = {AGENT_ZIP: sb3_policy.save_archive(model)}
    statistics = vec_normalize.read_statistics(model)
    if statistics is not None:
        files[VEC_NORMALIZE_JSON] = json.dumps(statistics).encode()
    known: dict[str, Any] = {"inference": inference}
    acting: Policy
    if inference == "onnx":
        exported = onnx_export.export_policy(model, source)
        files[POLICY_ONNX] = exported.graph
        known |= {"distribution": exported.policy.distribution, "parity": asdict(exported.parity)}
        acting, inputs, example = exported.policy, exported.policy.inputs, exported.example
    else:
        agent_files.check_unpickling_allowed("inference=native")
        acting = sb3_policy.SB3Policy.of(model, source.observation_space, source.action_space)
        inputs, example = (
            sb3_policy.policy_inputs_of(model, source.observation_space, source.action_space),
            onnx_export.sample_observations(source.observation_space, 1),
        )
    action_space = spaces.describe_space(source.action_space)
    card = {
        "algorithm": f"{type(model).__module__}.{type(model).__name__}",
        "observation_space": asdict(inputs.space),
        "action_space": asdict(action_space),
        "environment": None if source.description is None else json.loads(source.description),
        "versions": {
            name: importlib.metadata.version(name) for name in (*_ACTS_WITH, *_LEARNS_WITH)
        },
        "digests": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        EXAMPLE_ACTION: _first_action(acting, inputs, example),
        **known,
    }
    signature = pyfunc.make_signature(inputs, action_space, image_input=image_input)
    return PreparedModel(
        card, files, signature, pyfunc.make_request(inputs, example, image_input=image_input)
    )


def _first_action(policy: Policy, inputs: PolicyInputs, example: Observations) -> list[Any]:
    """What the agent does at the beginning of an episode with one observation, everything allowed."""
    masks = None if inputs.mask_size is None else np.ones((1, inputs.mask_size), bool)
    action, _ = policy.predict(example, None, np.ones(1, bool), action_masks=masks)
    answer: list[Any] = action.tolist()
    return answer


@dataclass(frozen=True)
class PreparedModel:
    """An agent, exported and checked. ``Model.log`` takes it in place of a flavor's module, for its ``save_model``."""

    card: dict[str, Any]
    files: dict[str, bytes]
    signature: ModelSignature
    example: Any
    """One request."""

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
        known = {name: self.card[name] for name in ("algorithm", "inference")} | self.card[
            "versions"
        ]
        mlflow_model.add_flavor(FLAVOR_NAME, data=AGENT_DIR, code="code", **known)
        if conda_env is None and pip_requirements is None:
            pip_requirements = [
                *get_default_pip_requirements(self.card["inference"]),
                *_listed(extra_pip_requirements),
            ]
            extra_pip_requirements = None
        with env_vars.temporary_env(
            {MLFLOW_UV_AUTO_DETECT.name: "false"}
        ):  # MLflow 3.17 copies a uv.lock from the working folder, and uv then installs that
            mlflow.pyfunc.save_model(
                folder,
                loader_module="mlflow_sb3.flavor",
                code_paths=[str(Path(__file__).parents[1]), *(code_paths or [])],
                conda_env=conda_env,
                mlflow_model=mlflow_model,
                signature=self.signature if signature is None else signature,
                input_example=self.example if input_example is None else input_example,
                pip_requirements=pip_requirements,
                extra_pip_requirements=extra_pip_requirements,
                metadata=metadata,
            )
        (folder / AGENT_DIR).mkdir()
        own = {EXAMPLE_ACTION: None} if input_example is not None else {}
        (folder / AGENT_DIR / AGENT_JSON).write_text(json.dumps(self.card | own, indent=2))
        for name, content in self.files.items():
            (folder / AGENT_DIR / name).write_bytes(content)
        mlflow_model.model_size_bytes = sum(
            file.stat().st_size for file in folder.rglob("*") if file.is_file()
        )
        mlflow_model.save(str(folder / "MLmodel"))


def _listed(requirements: list[str] | str | None) -> list[str]:
    """Requirements as a list; text is the path of a requirements file, as in MLflow's flavors."""
    return [f"-r {requirements}"] if isinstance(requirements, str) else list(requirements or [])
