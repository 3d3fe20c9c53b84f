"""Log an agent that SB3, rl_zoo3 or huggingface_sb3 saved as an MLflow model, and register it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo

from mlflow_sb3.client import permissions
from mlflow_sb3.envs import entry_points, wrapper_config
from mlflow_sb3.envs.wrapper_config import WrapperConfig
from mlflow_sb3.flavor import model_writer
from mlflow_sb3.flavor.model_writer import INFERENCE_TAG, PreparedModel
from mlflow_sb3.flavor.train_extra import check_train_extra
from mlflow_sb3.registry import names, registration, signing, versions
from mlflow_sb3.reports import version_card

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.exchange.agent_folder import AgentFolder
    from mlflow_sb3.registry.signing import KeyPath

SOURCE_TAG = "mlflow_sb3.imported_from"
"""Tag of a run and of a version: path of the imported file."""
SOURCE_DIGEST_TAG = "mlflow_sb3.imported_digest"
"""Tag of a run and of a version: SHA-256 of the imported file."""
CLAIM_TAG = "mlflow_sb3.claimed_mean_return"
"""Tag of a run and of a version: mean return that the author of the agent claims."""
_OTHER_KEYS = ("env_kwargs", "env_wrapper", "frame_stack", "n_timesteps")
"""Keys of ``config.yml`` that are no parameters, because others have their content."""


def import_agent(
    path: str | os.PathLike[str],
    *,
    algo: str | None = None,
    env: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    wrappers: Sequence[WrapperConfig] = (),
    registered_model_name: str | None = None,
    allow_pickle: bool = False,
    signing_key: KeyPath | None = None,
) -> ModelInfo:
    """Log an agent of SB3, rl_zoo3 or a Hugging Face repository as an MLflow model.

    The model is an ONNX graph, so nobody has to unpickle it again to use it. The run has the
    algorithm, the environment and the hyperparameters as parameters. It is the active run, or a new
    one.

    SB3's zip file and the statistics of ``VecNormalize`` are unpickled, which can run any code.

    Args:
        path: SB3's zip file; a folder that rl_zoo3 wrote, such as ``logs/ppo/CartPole-v1_1``; or a
            copy of a Hugging Face repository. A folder of rl_zoo3 gives ``best_model.zip``. If
            there is no such file, it gives the agent at the end of the training. Of a zip file in
            such a folder, the other files in the folder are used too.
        algo: Algorithm, such as ``"ppo"``. By default, what the files say.
        env: Environment, as in ``train``. By default, what the files say.
        env_kwargs: Arguments of the environment. They override those of the files.
        wrappers: Wrappers of the environment, as in ``train``. They are added around those of the
            files.
        registered_model_name: Registered model that gets a new version, with the alias
            ``challenger``.
        allow_pickle: Whether to unpickle the files. Pass True only if you trust their author.
        signing_key: As in ``log_model``.

    Returns:
        As for ``log_model``.

    Raises:
        MlflowException: ``allow_pickle`` is False, or ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` is
            false. The message names the files. Or the files do not contain exactly one agent, do
            not name its algorithm or environment, cannot be loaded, or cannot be exported to ONNX.
            Or a check of ``log_model`` failed.
    """
    check_train_extra("import_agent")
    from mlflow_sb3.exchange import agent_environment, agent_loader
    from mlflow_sb3.exchange.agent_folder import find_agent

    _check_registration(registered_model_name, signing_key)
    found = find_agent(Path(path), algo=algo, env_id=env)
    agent_loader.check_consent(found, allow_pickle=allow_pickle)
    if env is not None or wrappers:
        # The caller named these. What the files name must be installed; see describe_environment.
        entry_points.trust_options(env or "", map(wrapper_config.get_entry_point, wrappers))
    env_spec_json = agent_environment.describe_environment(
        found, env_kwargs=env_kwargs, wrappers=wrappers
    )
    model = agent_loader.load_agent(found, env_spec_json)
    prepared = model_writer.prepare_model(model, env_spec_json)
    params = _collect_params(found, model, env_spec_json)
    tags = _collect_tags(found)
    with _use_run(f"import {found.archive.name}"):
        mlflow.log_params({f"sb3/{key}": value for key, value in params.items()})
        mlflow.set_tags(tags)
        info = prepared.log(
            name=names.get_default_model_name(found.env_id, found.algo), step=model.num_timesteps
        )
    if registered_model_name is not None:
        facts = {f"mlflow_sb3.{key}": params[key] for key in ("env", "algo", "seed", "timesteps")}
        _register(info, registered_model_name, prepared, facts | tags, signing_key)
    return info


def _check_registration(name: str | None, signing_key: KeyPath | None) -> None:
    if name is not None:
        names.check_model_name(name)
        permissions.check_registration(name)
    elif signing_key is not None:
        raise MlflowException.invalid_parameter_value(
            f"signing_key={os.fspath(signing_key)!r} is passed without registered_model_name, but "
            "only a registered version can be signed. Pass registered_model_name too."
        )
    signing.check_keys(signing_key)


def _collect_params(found: AgentFolder, model: BaseAlgorithm, env_spec_json: str) -> dict[str, str]:
    """Return the parameters of the run without the prefix ``sb3/``."""
    from mlflow_sb3.envs import env_spec
    from mlflow_sb3.flavor.model_hyperparams import read_hyperparams

    seed = found.args.get("seed", model.seed)
    return (
        read_hyperparams(model)
        | {key: _to_text(value) for key, value in found.config.items() if key not in _OTHER_KEYS}
        | {
            "algo": found.algo,
            "env": found.env_id,
            "env_kwargs": _to_text(json.loads(env_spec_json)["kwargs"]),
            "wrappers": _to_text(env_spec.list_wrappers(env_spec_json)),
            "seed": "" if seed is None else str(seed),
            "timesteps": str(model.num_timesteps),
        }
    )


def _collect_tags(found: AgentFolder) -> dict[str, str]:
    tags = {
        SOURCE_TAG: str(found.archive),
        SOURCE_DIGEST_TAG: hashlib.sha256(found.open_archive().getvalue()).hexdigest(),
    }
    return tags | ({CLAIM_TAG: found.claimed_return} if found.claimed_return else {})


def _register(
    info: ModelInfo,
    name: str,
    prepared: PreparedModel,
    tags: dict[str, str],
    signing_key: KeyPath | None,
) -> None:
    """Register the model with the alias challenger, and set the version in ``info``."""
    version = registration.register_version(
        info.model_id,
        name,
        alias=names.CHALLENGER_ALIAS,
        tags=tags
        | {
            INFERENCE_TAG: prepared.agent_info.inference,
            versions.STATE_TAG: versions.CHALLENGER,
        },
        signing_key=signing_key,
        files=prepared.digests,
    )
    version_card.write_card(version)
    info.registered_model_version = version.number


@contextmanager
def _use_run(name: str) -> Iterator[None]:
    """Use the active run, or else a new one with this name."""
    with nullcontext() if mlflow.active_run() else mlflow.start_run(run_name=name):
        yield


def _to_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
