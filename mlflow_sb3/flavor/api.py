"""The public functions of the flavor: save, log and load agents."""

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
from mlflow_sb3.flavor.model_writer import INFERENCE_TAG
from mlflow_sb3.flavor.policy_loader import open_policy, read_agent_info
from mlflow_sb3.flavor.signature import ImageInput
from mlflow_sb3.flavor.train_extra import check_train_extra
from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import AGENT_DIR, InferenceBackend
from mlflow_sb3.inference.policy_protocol import AgentPolicy
from mlflow_sb3.registry import integrity, registration, signing
from mlflow_sb3.reports import version_card

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.registry.signing import KeyPath


def get_default_pip_requirements() -> list[str]:
    """Return the requirements of an exported agent, pinned to the installed versions.

    They contain neither PyTorch nor Stable-Baselines3. An agent with ``inference="native"`` needs
    both in addition.
    """
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
    """Save an agent as an MLflow model in a local folder.

    By default, the policy is exported to ONNX, and the graph is compared with SB3 before any file
    is written. The graph contains the observation normalization of ``VecNormalize``. The file
    ``MODEL_CARD.md`` describes the agent.

    Args:
        sb3_model: Trained SB3 algorithm; it is not changed.
        path: Folder to save to. It must be empty, or not exist.
        conda_env: As in MLflow's flavors.
        code_paths: Files and folders to add to the code of the model.
        mlflow_model: ``mlflow.models.Model`` to add the flavor to.
        signature: By default, derived from the spaces; floats are declared as float64.
        input_example: By default, one observation with the batch dimension. False: none.
        pip_requirements: By default, ``get_default_pip_requirements()``. With
            ``inference="native"``, SB3, sb3-contrib, PyTorch and Gymnasium are added.
        extra_pip_requirements: Requirements to add to the default.
        metadata: As in MLflow's flavors.
        environment: ``EnvSpec`` JSON of the training environment. By default, that of
            ``sb3_model``.
        inference: ``"native"`` for a policy that PyTorch cannot export. The model then needs SB3,
            and unpickles SB3's own file.
        image_input: ``"base64"`` declares image observations as a binary column with their bytes,
            which is faster over HTTP.

    Raises:
        MlflowException: ``sb3_model`` is no SB3 algorithm or cannot be exported, or the graph
            differs from SB3. ``environment`` or ``image_input`` does not fit the agent. A package
            of the extra ``[train]`` is missing. Or ``inference`` is ``"native"``, and
            ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` is false.
    """
    check_train_extra("save_model")
    prepared = model_writer.prepare_model(
        sb3_model, environment, inference=inference, image_input=image_input
    )
    prepared.save_model(
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
    """Log an agent as an MLflow model.

    Args:
        sb3_model: Trained SB3 algorithm; it is not changed.
        artifact_path: Deprecated by MLflow. Use ``name``.
        conda_env: As in MLflow's flavors.
        code_paths: As in ``save_model``.
        registered_model_name: Registered model that gets a new version, with the digest of the
            files as a tag, and the model card as its description.
        signature: As in ``save_model``.
        input_example: As in ``save_model``.
        await_registration_for: How long to wait until the version is ready, in seconds.
        pip_requirements: As in ``save_model``.
        extra_pip_requirements: As in ``save_model``.
        metadata: As in MLflow's flavors.
        name: Name of the LoggedModel.
        params: Parameters of the LoggedModel, in addition to those of the run.
        tags: Tags of the LoggedModel.
        model_type: Type of the LoggedModel.
        step: Training step of the LoggedModel.
        model_id: Id of an existing LoggedModel to log the files to.
        run_id: Run to log to. By default, the active run.
        environment: As in ``save_model``.
        inference: As in ``save_model``. It is also a tag of the LoggedModel.
        image_input: As in ``save_model``.
        signing_key: PEM file of the Ed25519 private key that signs the digest of the version.

    Raises:
        MlflowException: As in ``save_model``; or the key cannot sign, or is passed without
            ``registered_model_name``; or the user lacks a permission on the registered model.
            Nothing is logged then. If only the registration fails, the agent is already logged.
    """
    check_train_extra("log_model")
    if signing_key is not None and registered_model_name is None:
        raise MlflowException.invalid_parameter_value(
            f"signing_key={os.fspath(signing_key)!r} is passed without registered_model_name, but "
            "only a registered version can be signed. Pass registered_model_name too."
        )
    signing.check_keys(signing_key)
    if registered_model_name is not None:
        permissions.check_registration(registered_model_name)
    prepared = model_writer.prepare_model(
        sb3_model, environment, inference=inference, image_input=image_input
    )
    info = prepared.log(
        artifact_path=artifact_path,
        name=name,
        params=params,
        tags=tags,
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
            files=prepared.digests,
        )
        version_card.write_card(version)
        info.registered_model_version = version.number
    return info


def load_policy(
    model_uri: str, *, public_key: KeyPath | None = None, allow_pickle: bool = False
) -> AgentPolicy:
    """Load the policy of an agent to predict actions.

    For an exported agent, this opens the ONNX graph. It unpickles nothing and does not import the
    code of the model. An agent with ``inference="native"`` has no graph and is unpickled.

    Args:
        model_uri: ``models:/name@alias``, ``models:/name/3``, ``models:/m-…``, ``runs:/…`` or a
            folder. If the URI names a registered version with a digest, the files are compared
            with the digest.
        public_key: PEM file of an Ed25519 public key. The model must then be a registered version
            with a signature by this key.
        allow_pickle: Whether to load an agent with ``inference="native"`` although no
            ``public_key`` vouches for it. Unpickling can run any code, so trust the author.

    Returns:
        The policy, with the signature of SB3's ``predict``.

    Raises:
        MlflowException: The files have changed, or the model contains no agent. ``public_key`` is
            set, but the URI names no registered version with a valid signature by this key. Or
            the agent must be unpickled, and neither ``allow_pickle`` nor ``public_key`` is set, or
            ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` is false.
    """
    with integrity.fetch_uri(model_uri, public_key=public_key) as folder:
        return open_policy(folder, is_trusted=allow_pickle or public_key is not None)


def load_model(
    model_uri: str,
    dst_path: str | None = None,
    *,
    env: Any = None,
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
    **kwargs: Any,
) -> BaseAlgorithm:
    """Load an agent as SB3 algorithm, to continue training.

    This unpickles SB3's file, which can run any code. Pass ``allow_pickle=True`` if you trust the
    author of the model, or the ``public_key`` of the author.

    Args:
        model_uri: As in ``load_policy``.
        dst_path: Folder to copy the files of the model to. It is created if it does not exist.
        env: Environment to train in. An agent with ``HerReplayBuffer`` needs one. If the agent was
            trained with ``VecNormalize``, the environment is wrapped in a ``VecNormalize`` with
            the saved statistics, unless it already has a ``VecNormalize``.
        public_key: As in ``load_policy``.
        allow_pickle: Whether to unpickle a model that no ``public_key`` vouches for.
        kwargs: Arguments of SB3's ``load``, such as ``device`` and ``custom_objects``.

    Raises:
        MlflowException: Neither ``allow_pickle`` nor ``public_key`` is set,
            ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` is false, a package of the extra ``[train]`` is
            missing, SB3 cannot load the agent, or a check of ``load_policy`` failed.
    """
    check_train_extra("load_model")
    agent_files.check_unpickling_allowed(
        f"load_model({model_uri!r})", is_trusted=allow_pickle or public_key is not None
    )
    with integrity.fetch_uri(model_uri, public_key=public_key) as folder:
        if dst_path is not None:
            shutil.copytree(folder, dst_path, dirs_exist_ok=True)
        try:
            return _load_algorithm(folder, model_uri, env, **kwargs)
        except (AssertionError, KeyError, OSError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(
                f"The agent of {model_uri} cannot be loaded: {error}"
            ) from error


def _load_algorithm(folder: Path, model_uri: str, env: Any, **kwargs: Any) -> BaseAlgorithm:
    from mlflow_sb3.flavor import sb3_policy, vec_normalize

    info = read_agent_info(folder)
    statistics = sb3_policy.load_statistics(folder / AGENT_DIR, info)
    if statistics is not None and env is None:
        warnings.warn(
            f"The agent of {model_uri} was trained with VecNormalize. Pass env to load_model to "
            "restore its statistics.",
            stacklevel=3,
        )
    elif statistics is not None:
        env = vec_normalize.wrap_env(env, statistics)
    return sb3_policy.load_algorithm(folder / AGENT_DIR, info, env=env, **kwargs)
