"""Train an agent again on its commit, with its configuration, and compare the weights."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException, MlflowException

from mlflow_sb3.algorithms.class_names import list_class_names
from mlflow_sb3.envs import entry_points, env_spec, wrapper_config
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
        MlflowException: ``commit`` is None, or is neither in this clone nor in its remote origin.
    """
    if commit is None:
        raise MlflowException.invalid_parameter_value(
            "The training run has no commit, because its code was not in a git clone. "
            "Train again from a clone to be able to reproduce the run."
        )
    if not _has_commit(commit):
        # Fetch the branches, not the commit by its id: hosts such as GitHub would also serve the
        # commits of forks, which anyone can write.
        _run_git("fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*")
    if not _has_commit(commit):
        raise MlflowException.invalid_parameter_value(
            f"Commit {commit} is neither in {PROJECT} nor on a branch of origin. "
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


def check_config(config: TrainingConfig) -> None:
    """Check that a recorded configuration names only classes that may be imported and called.

    Another user may have written the record.

    Raises:
        MlflowException: See ``entry_points.check_spec``.
    """
    if ":" in config.env:
        entry_points.check_module(config.env)
    for wrapper in config.wrappers:
        entry_points.check_wrapper(wrapper_config.get_entry_point(wrapper))
    for name in list_class_names(config.hyperparams):
        if ":" in name:
            entry_points.check_module(name)
    env_spec.make_from_spec(config.description).close()


def train_again(project: Path, config: TrainingConfig) -> str:
    """Run the entry point ``train`` of a project as a child of the active run.

    Args:
        project: Folder of the project.
        config: Configuration of the training.

    Returns:
        Id of the new run.

    Raises:
        MlflowException: The training failed.
    """
    try:
        submitted = mlflow.run(  # type: ignore[no-untyped-call]
            str(project),
            "train",
            parameters=config.to_options(),
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


def _has_commit(commit: str) -> bool:
    return _run_git("cat-file", "-e", f"{commit}^{{commit}}") is not None


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
