"""A training done again: its commit beside the working folder, its recipe, and the weights compared."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException, MlflowException

from mlflow_sb3.training import provenance
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG, TrainingRecord

PROJECT = Path(__file__).parents[2]


@contextmanager
def checked_out(commit: str | None) -> Iterator[Path]:
    """The project's folder at a commit, in a temporary worktree of this clone; the working folder stays as it is.

    Raises:
        MlflowException: The commit is not known, or neither here nor in a remote.
    """
    if commit is None:
        raise MlflowException.invalid_parameter_value(
            "the run names no commit: its code did not lie in a git clone. Train it again from a clone, to have it reproduced later."
        )
    if (
        _git("cat-file", "-e", f"{commit}^{{commit}}") is None
        and _git("fetch", "--quiet", "origin", commit) is None
    ):
        raise MlflowException.invalid_parameter_value(
            f"commit {commit} is neither in {PROJECT} nor in its origin; fetch the branch that has it, and call again."
        )
    with TemporaryDirectory() as folder:
        place = Path(folder, "mlflow-sb3")
        if _git("worktree", "add", "--quiet", "--detach", str(place), commit) is None:
            raise MlflowException.invalid_parameter_value(
                f"commit {commit} cannot be checked out in {place}; see git worktree list."
            )
        try:
            yield place / (
                _git("rev-parse", "--show-prefix") or ""
            )  # a project may lie in a subfolder of its repository
        finally:
            _git("worktree", "remove", "--force", str(place))


def train(project: Path, recipe: dict[str, Any]) -> str:
    """Follow a recipe with a project's code, as a child of the active run; returns the id of the new run.

    Raises:
        MlflowException: The training failed.
    """
    from mlflow_sb3.training.config import TrainingConfig

    try:
        submitted = mlflow.run(  # type: ignore[no-untyped-call]
            str(project),
            "train",
            parameters=TrainingConfig(**recipe).options(),
            env_manager="local",
            run_name="train",
        )
    except ExecutionException as error:
        raise MlflowException.invalid_parameter_value(
            f"training again failed: {error.message}; its line above says why."
        ) from error
    return str(submitted.run_id)


def compare(run: Run, record: TrainingRecord, again: str) -> tuple[bool, list[str]]:
    """Whether the weights of both are the same, to the bit, and what differs otherwise; see ``provenance.differences``."""
    repeated = provenance.load_training_record(again)
    same = (
        run.data.tags[POLICY_DIGEST_TAG] == repeated[0].data.tags[POLICY_DIGEST_TAG]
        and record["policy"] == repeated[1]["policy"]
    )
    return same, provenance.differences(run, record, *repeated)


def _git(*arguments: str) -> str | None:
    """What git says in the project's folder; None where it refuses."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, check=False)  # noqa: S607
    except OSError as error:
        raise MlflowException.invalid_parameter_value(
            f"git cannot be called: {error}; install it to reproduce a training."
        ) from error
    return None if done.returncode else os.fsdecode(done.stdout).removesuffix("\n")
