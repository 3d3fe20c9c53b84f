"""Prepare an agent for logging, and write the files of its MLflow model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import mlflow.pyfunc
import numpy as np
from mlflow.environment_variables import MLFLOW_UV_AUTO_DETECT
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo

from mlflow_sb3.client import env_vars
from mlflow_sb3.flavor import card_writer, shipped_code
from mlflow_sb3.flavor.signature import ImageInput, make_request, make_signature
from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import (
    AGENT_DIR,
    AGENT_JSON,
    AGENT_ZIP,
    POLICY_ONNX,
    VEC_NORMALIZE_JSON,
    AgentInfo,
    InferenceBackend,
    Parity,
)
from mlflow_sb3.registry import digest
from mlflow_sb3.registry.loader import CODE_DIR, LOADER_MODULE
from mlflow_sb3.reports.card_facts import CardFacts

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.flavor.source_env import SourceEnv
    from mlflow_sb3.inference.batching import Observations
    from mlflow_sb3.inference.policy_inputs import PolicyInputs
    from mlflow_sb3.inference.policy_protocol import Policy

FLAVOR_NAME = "stable_baselines3"
INFERENCE_TAG = "mlflow_sb3.inference"
"""Tag of a model and of its versions: the inference backend."""

_ONNX_PACKAGES = ("mlflow", "numpy", "onnxruntime")
_NATIVE_PACKAGES = (*_ONNX_PACKAGES, "stable_baselines3", "sb3_contrib", "torch", "gymnasium")
_RECORDED_PACKAGES = (*_NATIVE_PACKAGES, "onnx")
"""Packages that have their version in ``agent.json``."""


def get_default_pip_requirements(inference: InferenceBackend = "onnx") -> list[str]:
    """Return the requirements of a model, pinned to the installed versions."""
    names = _ONNX_PACKAGES if inference == "onnx" else _NATIVE_PACKAGES
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
    facts: CardFacts | None = None,
) -> PreparedModel:
    """Prepare the content of a model: its files, signature and input example.

    For ONNX inference, export the policy and compare the graph with SB3. Both backends keep SB3's
    own file. Nothing is written to disk.

    Args:
        model: SB3 algorithm; it is not changed.
        environment: ``EnvSpec`` JSON. By default, the environment that the model holds.
        inference: ``"native"`` skips the export. The model then unpickles SB3's own file.
        image_input: See ``signature.make_signature``.
        facts: Facts for the model card. By default, those that ``model`` itself knows.

    Raises:
        MlflowException: The model is no SB3 algorithm. ``environment`` or ``image_input`` does not
            fit the model. The export fails. The graph differs from SB3. Or MLflow does not allow
            the unpickling that native inference needs.
    """
    from mlflow_sb3.envs import spaces
    from mlflow_sb3.flavor import sb3_policy, source_env, vec_normalize

    source_env.check_algorithm(model)
    source = source_env.find_source_env(model, environment)
    source_env.warn_without_statistics(model)
    files = {AGENT_ZIP: sb3_policy.save_to_bytes(model)}
    statistics = vec_normalize.read_statistics(model)
    if statistics is not None:
        files[VEC_NORMALIZE_JSON] = json.dumps(statistics).encode()
    policy = _export(model, source) if inference == "onnx" else _keep_native(model, source)
    if policy.graph is not None:
        files[POLICY_ONNX] = policy.graph
    info = AgentInfo(
        algorithm=f"{type(model).__module__}.{type(model).__name__}",
        observation_space=policy.inputs.space,
        action_space=spaces.describe_space(source.action_space),
        environment=None if source.description is None else json.loads(source.description),
        versions={name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES},
        digests={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        example_action=_predict_example(policy),
        inference=inference,
        distribution=policy.distribution,
        parity=policy.parity,
    )
    return PreparedModel(
        info,
        policy.inputs,
        facts or card_writer.read_facts(model),
        files,
        make_signature(policy.inputs, info.action_space, image_input=image_input),
        make_request(policy.inputs, policy.example, image_input=image_input),
    )


@dataclass(frozen=True)
class _PreparedPolicy:
    """The policy of a model. With native inference, graph, distribution and parity are None."""

    policy: Policy
    inputs: PolicyInputs
    example: Observations
    """One observation, with the batch dimension."""
    graph: bytes | None = None
    distribution: dict[str, Any] | None = None
    parity: Parity | None = None


def _export(model: BaseAlgorithm, source: SourceEnv) -> _PreparedPolicy:
    from mlflow_sb3.flavor import onnx_export

    exported = onnx_export.export_policy(model, source)
    return _PreparedPolicy(
        exported.policy,
        exported.policy.inputs,
        exported.example,
        exported.graph,
        exported.policy.distribution,
        exported.parity,
    )


def _keep_native(model: BaseAlgorithm, source: SourceEnv) -> _PreparedPolicy:
    from mlflow_sb3.flavor import parity_inputs, sb3_policy

    agent_files.check_unpickling_allowed("A model with inference=native", is_trusted=True)
    return _PreparedPolicy(
        sb3_policy.SB3Policy.from_algorithm(model, source.observation_space, source.action_space),
        sb3_policy.describe_inputs(model, source.observation_space, source.action_space),
        parity_inputs.sample_observations(source.observation_space, 1),
    )


def _predict_example(policy: _PreparedPolicy) -> list[Any]:
    """Return the action for the example, at the start of an episode with all actions allowed."""
    size = policy.inputs.mask_size
    masks = None if size is None else np.ones((1, size), bool)
    actions, _ = policy.policy.predict(policy.example, None, np.ones(1, bool), action_masks=masks)
    values: list[Any] = actions.tolist()
    return values


@dataclass(frozen=True)
class PreparedModel:
    """An agent that is ready to be saved.

    It has the functions that MLflow expects of the module of a flavor.
    """

    agent_info: AgentInfo
    inputs: PolicyInputs
    facts: CardFacts
    files: dict[str, bytes]
    """Files of the ``agent`` folder by name, without ``agent.json``."""
    signature: ModelSignature
    example: Any
    """A request with one observation."""
    digests: dict[Path, str] = field(default_factory=dict)
    """Result of ``digest.hash_files``. Empty before ``save_model``."""

    def log(
        self,
        artifact_path: str | None = None,
        *,
        tags: dict[str, Any] | None = None,
        **options: Any,
    ) -> ModelInfo:
        """Log the model.

        Args:
            artifact_path: Deprecated by MLflow.
            tags: Tags of the LoggedModel, in addition to the inference backend.
            options: Further arguments of ``mlflow.models.Model.log``.
        """
        tags = {INFERENCE_TAG: self.agent_info.inference} | (tags or {})
        info: ModelInfo = Model.log(
            artifact_path, flavor=self, flavor_name=FLAVOR_NAME, tags=tags, **options
        )
        return info

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
        """Write the folder of the model. The arguments are those of ``mlflow_sb3.save_model``."""
        folder = Path(path)
        mlflow_model = Model() if mlflow_model is None else mlflow_model
        self._add_flavor(mlflow_model)
        if conda_env is None and pip_requirements is None:
            # MLflow accepts only one of pip_requirements and extra_pip_requirements.
            pip_requirements = [
                *get_default_pip_requirements(self.agent_info.inference),
                *_list_requirements(extra_pip_requirements),
            ]
            extra_pip_requirements = None
        with _without_uv_lock(), TemporaryDirectory() as staging:
            example = self.example if input_example is None else input_example
            package = shipped_code.copy_package(Path(staging), self.agent_info.inference)
            mlflow.pyfunc.save_model(
                folder,
                loader_module=LOADER_MODULE,
                code_paths=[str(package), *(code_paths or [])],
                conda_env=conda_env,
                mlflow_model=mlflow_model,
                signature=self.signature if signature is None else signature,
                input_example=None if input_example is False else example,
                pip_requirements=pip_requirements,
                extra_pip_requirements=extra_pip_requirements,
                metadata=metadata,
            )
        self._write_agent(folder / AGENT_DIR, is_default_example=input_example is None)
        card_writer.write_card(folder, self.agent_info, self.inputs, self.facts, model=mlflow_model)
        mlflow_model.model_size_bytes = sum(
            file.stat().st_size for file in folder.rglob("*") if file.is_file()
        )
        mlflow_model.save(str(folder / "MLmodel"))
        self.digests.update(digest.hash_files(folder))

    def _add_flavor(self, mlflow_model: Model) -> None:
        mlflow_model.add_flavor(
            FLAVOR_NAME,
            data=AGENT_DIR,
            code=CODE_DIR,
            algorithm=self.agent_info.algorithm,
            inference=self.agent_info.inference,
            **self.agent_info.versions,
        )

    def _write_agent(self, folder: Path, *, is_default_example: bool) -> None:
        info = self.agent_info
        if not is_default_example:
            # The expected action is known only for the default example.
            info = replace(info, example_action=None)
        folder.mkdir()
        (folder / AGENT_JSON).write_text(json.dumps(info.to_json(), indent=2))
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


@contextmanager
def _without_uv_lock() -> Iterator[None]:
    """Ignore a ``uv.lock`` in the working folder.

    MLflow 3.17 copies the file into the model. ``uv`` would then install the packages of the file
    instead of the requirements.
    """
    with env_vars.override_env({MLFLOW_UV_AUTO_DETECT.name: "false"}):
        yield


def _list_requirements(requirements: list[str] | str | None) -> list[str]:
    """Return requirements as a list. A string is the path of a requirements file, as in MLflow."""
    return [f"-r {requirements}"] if isinstance(requirements, str) else list(requirements or [])
