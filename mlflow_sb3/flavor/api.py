"""MLflow's flavor of Stable-Baselines3: save, log and load agents, and the loader that ``mlflow.pyfunc`` calls."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo

from mlflow_sb3.client import permissions
from mlflow_sb3.flavor import model_writer
from mlflow_sb3.flavor.model_writer import FLAVOR_NAME, INFERENCE_TAG, InferenceBackend
from mlflow_sb3.flavor.policy_loader import open_policy, read_card
from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import AGENT_DIR
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.inference.pyfunc import ImageInput, PolicyModel
from mlflow_sb3.registry import integrity, registration, signing

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.flavor.sb3_policy import SB3AgentPolicy
    from mlflow_sb3.registry.signing import KeyPath


def get_default_pip_requirements() -> list[str]:
    """What a saved agent needs to act, pinned to the installed versions: neither PyTorch nor Stable-Baselines3."""
    return model_writer.get_default_pip_requirements()


def save_model(
    sb3_model: BaseAlgorithm,
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
    environment: str | None = None,
    inference: InferenceBackend = "onnx",
    image_input: ImageInput = "tensor",
) -> None:
    """Save an agent as an MLflow model that acts without PyTorch.

    The policy is exported to ONNX and compared with SB3 before anything is written. What a VecNormalize has learned goes into the graph.

    Args:
        sb3_model: A trained algorithm; it is not changed.
        path: Folder to save to; must not exist, or be empty.
        conda_env: As in MLflow's flavors.
        code_paths: More code for the model to carry, besides the loader.
        mlflow_model: ``mlflow.models.Model`` to add the flavor to.
        signature: Derived from the spaces by default; float observations are declared float64.
        input_example: One observation by default, with the batch dimension.
        pip_requirements: ``get_default_pip_requirements()`` by default.
        extra_pip_requirements: Added to the default.
        metadata: As in MLflow's flavors.
        environment: ``EnvSpec`` JSON; taken from the environment of ``sb3_model`` by default.
        inference: ``"native"`` for policies that PyTorch cannot export: the model acts by SB3's own file, which it has to unpickle.
        image_input: ``"base64"`` lets an image observation come as the bytes of a binary column, which is faster over HTTP.

    Raises:
        MlflowException: It is no SB3 algorithm, it cannot be exported, or its export does not agree with SB3.
    """
    model_writer.prepare_model(
        sb3_model, environment, inference=inference, image_input=image_input
    ).save_model(
        path=path,
        conda_env=conda_env,
        code_paths=code_paths,
        mlflow_model=mlflow_model,
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
    )


def log_model(
    sb3_model: BaseAlgorithm,
    artifact_path: str | None = None,
    *,
    conda_env: dict[str, Any] | str | None = None,
    code_paths: list[str] | None = None,
    registered_model_name: str | None = None,
    signature: ModelSignature | Literal[False] | None = None,
    input_example: Any = None,
    await_registration_for: int | None = 300,
    pip_requirements: list[str] | str | None = None,
    extra_pip_requirements: list[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    name: str | None = None,
    params: dict[str, Any] | None = None,
    tags: dict[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    run_id: str | None = None,
    environment: str | None = None,
    inference: InferenceBackend = "onnx",
    image_input: ImageInput = "tensor",
    signing_key: KeyPath | None = None,
) -> ModelInfo:
    """Log an agent as an MLflow model that acts without PyTorch.

    Args:
        sb3_model: A trained algorithm; it is not changed.
        artifact_path: Deprecated by MLflow; use ``name``.
        conda_env: As in MLflow's flavors.
        code_paths: As in ``save_model``.
        registered_model_name: Register a version of that model, with its digest as a tag.
        signature: As in ``save_model``.
        input_example: As in ``save_model``.
        await_registration_for: Seconds to wait for the version to become ready.
        pip_requirements: As in ``save_model``.
        extra_pip_requirements: As in ``save_model``.
        metadata: As in MLflow's flavors.
        name: Of the LoggedModel.
        params: Of the LoggedModel, besides those of the run.
        tags: Of the LoggedModel.
        model_type: Of the LoggedModel.
        step: Training step that the model belongs to.
        model_id: An existing LoggedModel to save into.
        run_id: Run to log into; the active one by default.
        environment: As in ``save_model``.
        inference: As in ``save_model``; tags the LoggedModel.
        image_input: As in ``save_model``.
        signing_key: PEM file of an Ed25519 private key, to sign the digest of the registered version with.

    Raises:
        MlflowException: As ``save_model``; or the key cannot sign, or no version is registered to sign. Nothing is logged then.
    """
    if signing_key is not None and registered_model_name is None:
        raise MlflowException.invalid_parameter_value(
            f"signing_key={os.fspath(signing_key)!r} signs a registered version, and none is registered; give registered_model_name too."
        )
    signing.check_keys(signing_key)
    if registered_model_name is not None:
        permissions.check_registration(registered_model_name)
    info: ModelInfo = Model.log(
        artifact_path=artifact_path,
        flavor=model_writer.prepare_model(
            sb3_model, environment, inference=inference, image_input=image_input
        ),
        flavor_name=FLAVOR_NAME,
        name=name,
        params=params,
        tags={INFERENCE_TAG: inference} | (tags or {}),
        model_type=model_type,
        step=step,
        model_id=model_id,
        run_id=run_id,
        conda_env=conda_env,
        code_paths=code_paths,
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
    )
    if registered_model_name is not None:
        version = registration.register_version(
            info.model_id,
            registered_model_name,
            tags={INFERENCE_TAG: inference},
            await_registration_for=await_registration_for,
            signing_key=signing_key,
        )
        info.registered_model_version = version.number
    return info


def load_policy(
    model_uri: str, *, public_key: KeyPath | None = None
) -> OnnxPolicy | SB3AgentPolicy:
    """Load an agent to act: opens the ONNX graph alone, unpickles nothing and imports no code of the model's.

    An agent that was logged with ``inference="native"`` has no graph, and is unpickled.

    Args:
        model_uri: ``models:/name@alias``, ``models:/name/3``, ``models:/m-…``, ``runs:/…`` or a folder. The files of a
            registered version are checked against its digest.
        public_key: PEM file of an Ed25519 key. Then only a registered version is loaded whose digest the key's owner signed.

    Raises:
        MlflowException: The files are not those that were registered, or not signed with that key, or hold no agent.
    """
    with integrity.fetch_uri(model_uri, public_key=public_key) as folder:
        return open_policy(folder)


def load_model(
    model_uri: str,
    dst_path: str | None = None,
    *,
    env: Any = None,
    public_key: KeyPath | None = None,
    **kwargs: Any,
) -> BaseAlgorithm:
    """Load an agent as the SB3 algorithm, to go on training. This unpickles: load only what you trust.

    Args:
        model_uri: As in ``load_policy``.
        dst_path: Existing folder to keep the model's files in.
        env: To learn in; an agent with HerReplayBuffer needs one. An agent that was trained with VecNormalize gets one
            around it, with what it had learned.
        public_key: As in ``load_policy``.
        kwargs: Handed to SB3's ``load``: ``device``, ``custom_objects``, …

    Raises:
        MlflowException: ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` is false, or a file is not the one that was saved, or the
            files are not signed with the public key.
    """
    agent_files.check_unpickling_allowed(f"load_model({model_uri!r})")
    from mlflow_sb3.flavor import sb3_policy, vec_normalize

    with integrity.fetch_uri(model_uri, public_key=public_key) as folder:
        if dst_path is not None:
            shutil.copytree(folder, dst_path, dirs_exist_ok=True)
        try:
            card = read_card(folder)
            learned = sb3_policy.load_statistics(folder / AGENT_DIR, card)
            if learned is not None and env is None:
                warnings.warn(
                    f"the agent of {model_uri} learned with VecNormalize, which it has again if env= is given.",
                    stacklevel=2,
                )
            learning = (
                env if env is None or learned is None else vec_normalize.wrap_env(env, learned)
            )
            return sb3_policy.load_algorithm(folder / AGENT_DIR, card, env=learning, **kwargs)
        except (AssertionError, KeyError, OSError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(
                f"the agent of {model_uri} cannot be loaded: {error}"
            ) from error


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> PolicyModel:  # noqa: ARG001 MLflow passes it
    """Called by ``mlflow.pyfunc.load_model`` with the model's folder."""
    return PolicyModel(open_policy(Path(path)))
