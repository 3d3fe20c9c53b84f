"""Train an agent again on its commit, with its configuration, and compare the weights."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException, MlflowException

from mlflow_sb3.algorithms.class_names import list_class_names
from mlflow_sb3.algorithms.zoo_presets import Preset
from mlflow_sb3.envs import entry_points, env_spec, vec_env_factory, wrapper_config
from mlflow_sb3.inference import agent_files
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.training import provenance, training_record
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from mlflow_sb3.training.training_record import TrainingRecord

if TYPE_CHECKING:
    from mlflow_sb3.training.config import TrainingConfig

PROJECT = Path(__file__).parents[2]
"""Folder of the project, with the file ``MLproject``."""


@dataclass(frozen=True)
class Reproduction:
    """Comparison of a training with its repetition."""

    is_identical: bool
    """Whether the weights are the same, to the bit."""
    differences: list[str]
    """Differences that could explain different weights; see ``provenance.list_differences``."""


@contextmanager
def checkout_commit(commit: str | None) -> Iterator[Path]:
    """Check out a commit into a temporary worktree of this clone.

    The working tree of the clone does not change.

    Yields:
        Folder of the project in the worktree.

    Raises:
        MlflowException: ``commit`` is None, or is on no branch and no tag of this clone or of its
            remote origin.
    """
    if commit is None:
        raise MlflowException.invalid_parameter_value(
            "The training run has no commit, because its code was not in a git clone. "
            "Train again from a clone to be able to reproduce the run."
        )
    if re.fullmatch("[0-9a-f]{40}", commit) is None:
        raise MlflowException.invalid_parameter_value(
            f"The training run has the commit {commit!r}, which is no SHA-1 of git. Train again."
        )
    if not _has_commit(commit):
        _fetch_branches()
    if not _has_commit(commit):
        raise MlflowException.invalid_parameter_value(
            f"Commit {commit} is on no branch and no tag of {PROJECT} or of origin. "
            "Fetch it from a clone that has it, and call reproduce again."
        )
    with TemporaryDirectory() as folder:
        worktree = Path(folder, "mlflow-sb3")
        if _run_git("worktree", "add", "--quiet", "--detach", str(worktree), commit) is None:
            raise MlflowException.invalid_parameter_value(
                f"Commit {commit} cannot be checked out in {worktree}. See git worktree list."
            )
        try:
            # The project may be in a subfolder of its repository.
            yield worktree / (_run_git("rev-parse", "--show-prefix") or "")
        finally:
            _run_git("worktree", "remove", "--force", str(worktree))


def check_config(config: TrainingConfig, trust: FileTrust) -> None:
    """Check that a recorded configuration names only classes that may be imported and called.

    Another user may have written the record. The training then passes the configuration to the code
    of its commit, which may be older than these checks.

    Args:
        config: Configuration of the training.
        trust: Whether the model of ``from_model`` may be unpickled.

    Raises:
        MlflowException: A name is not allowed (see ``entry_points.check_spec``), the
            hyperparameters are not in the form that ``train`` records, or the model of
            ``from_model`` may not be unpickled.
    """
    trust.check_keys()
    if config.from_model:
        agent_files.check_unpickling_allowed(
            f"The training fine-tuned {config.from_model}. Repeating it",
            is_trusted=trust.allow_pickle or bool(trust.public_key),
        )
    preset = Preset("training.json")
    if preset.override(config.hyperparams) != replace(preset, hyperparams=config.hyperparams):
        raise MlflowException.invalid_parameter_value(
            f"The hyperparameters {json.dumps(config.hyperparams)} are not in the form that train "
            "records, so training.json was changed. Train again instead."
        )
    if ":" in config.env:
        entry_points.check_module(config.env)
    _check_function(config)
    for wrapper in config.wrappers:
        entry_points.check_wrapper(wrapper_config.get_entry_point(wrapper))
    for name in list_class_names(config.hyperparams):
        if ":" in name:
            _check_class(name)
    env_spec.make_from_spec(config.description).close()


def _check_function(config: TrainingConfig) -> None:
    """Check that the user trusts the function in ``env``, and that ``description`` has it too."""
    is_function = vec_env_factory.is_factory(config.env)
    if is_function:
        entry_points.import_function(config.env)
    if is_function != vec_env_factory.is_vec_env(config.description):
        raise MlflowException.invalid_parameter_value(
            f"The environment {config.env} does not fit the EnvSpec {config.description}, so "
            "training.json was changed. Train again instead."
        )


def _check_class(name: str) -> None:
    from mlflow_sb3.algorithms import hyperparams

    entry_points.check_module(name)
    try:
        hyperparams.find_class(name)
    except (ImportError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def train_again(project: Path, config: TrainingConfig, trust: FileTrust) -> str:
    """Run the entry point ``train`` of a project as a child of the active run.

    Args:
        project: Folder of the project.
        config: Configuration of the training.
        trust: Passed on to ``train``, which checks the signature. Earlier commits of the project
            do not check it, so they need ``allow_pickle`` to repeat a fine-tuning.

    Returns:
        Id of the new run.

    Raises:
        MlflowException: The training failed, or the commit would unpickle without a check.
    """
    parameters = config.to_options()
    checks_signatures = "allow_pickle:" in (project / "MLproject").read_text()
    if config.from_model and not checks_signatures and not trust.allow_pickle:
        raise MlflowException.invalid_parameter_value(
            "The commit of the training checks no signature before it unpickles "
            f"{config.from_model}. If you trust the author, set allow_pickle=true."
        )
    if checks_signatures:
        parameters |= {
            "public_key": trust.public_key and str(Path(trust.public_key).absolute()),
            "allow_pickle": json.dumps(trust.allow_pickle),
        }
    try:
        submitted = mlflow.run(  # type: ignore[no-untyped-call]
            str(project),
            "train",
            parameters=parameters,
            env_manager="local",
            run_name="train",
        )
    except ExecutionException as error:
        raise MlflowException.invalid_parameter_value(
            f"The new training failed: {error.message}. Its error message is above."
        ) from error
    return str(submitted.run_id)


def compare_training(run: Run, record: TrainingRecord, new_run_id: str) -> Reproduction:
    """Compare the weights of a training with those of its repetition."""
    new_run, new_record = training_record.load_training_record(new_run_id)
    has_same_tag = run.data.tags[POLICY_DIGEST_TAG] == new_run.data.tags[POLICY_DIGEST_TAG]
    return Reproduction(
        is_identical=has_same_tag and record.policy == new_record.policy,
        differences=provenance.list_differences(run, record, new_run, new_record),
    )


def _fetch_branches() -> None:
    """Fetch all branches and tags of origin.

    A commit is not fetched by its id, because hosts such as GitHub would also serve the commits of
    forks, which anyone can write.
    """
    is_shallow = _run_git("rev-parse", "--is-shallow-repository") == "true"
    depth = ["--unshallow"] if is_shallow else []
    _run_git("fetch", "--quiet", "--tags", *depth, "origin", "+refs/heads/*:refs/remotes/origin/*")


def _has_commit(commit: str) -> bool:
    """Return whether a commit is on a branch or a tag, or below HEAD.

    It is not enough that git has or gets the commit: a partial clone fetches any commit by its id.
    """
    refs = _run_git("for-each-ref", "--count=1", "--contains", commit)
    return bool(refs) or _run_git("merge-base", "--is-ancestor", commit, "HEAD") is not None


def _run_git(*arguments: str) -> str | None:
    """Return the output of a git command in the project. None if the command fails."""
    try:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
    except OSError as error:
        raise MlflowException.invalid_parameter_value(
            f"git cannot be called: {error}. Install git to reproduce a training."
        ) from error
    return None if done.returncode else os.fsdecode(done.stdout).removesuffix("\n")
