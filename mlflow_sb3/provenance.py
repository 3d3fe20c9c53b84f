"""Where the weights of an agent come from: the recipe, the code, the packages and the processor, and what differs between two runs."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from mlflow_sb3.recipe import Recipe
    from mlflow_sb3.tracker import Tracker
    from mlflow_sb3.training import Trained

RECORD = "training.json"
DIGEST = "mlflow_sb3.policy_digest"
"""Tag of a training run: SHA-256 of the weights of the kept agent; see ``training.weights_digest``."""
INEXACT = "mlflow_sb3.inexact"
"""Tag of a training run: why it does not end as it would have without the interruption."""
COMMIT = "mlflow.source.git.commit"
SCHEMA = 1
_FACTS = {
    "commit": "commit",
    "changes": "digest of the uncommitted changes",
    "python": "Python",
    "packages": "package",
    "cpu": "CPU",
    "torch_capability": "PyTorch's instructions",
    "torch_threads": "thread count",
}
_PLAIN = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--full-index",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--unified=3",
    "--inter-hunk-context=0",
    "--diff-algorithm=myers",
    "--indent-heuristic",
    "--no-relative",
    "-O/dev/null",
)
"""Options of a diff that a user's settings of git may say otherwise."""
_PLAIN_SETTINGS = ("-c", "core.quotePath=true", "-c", "diff.suppressBlankEmpty=false")
"""The same, of what a diff has no options for."""

Record = dict[str, Any]


def log(trained: Trained, recipe: Recipe, found: Record, tracker: Tracker) -> None:
    """Write down how an agent came about; ``found`` is what ``facts`` said when its training began."""
    digests = {"kept": trained.digest, "last": trained.last_digest}
    tracker.file(RECORD, json.dumps({"schema": SCHEMA, "recipe": recipe.to_json(), "facts": found, "policy": digests}, indent=2))
    tracker.tags({DIGEST: trained.digest})


def facts(torch_threads: int) -> Record:
    """What decides about the last bits, beside the recipe: the code and the machine of this process, as JSON values."""
    import torch

    return {
        "commit": (_git("rev-parse", "HEAD") or b"").decode() or None,
        "changes": changes(),
        "python": platform.python_version(),
        "packages": _packages(),
        "cpu": _cpu(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch_threads,
    }


def changes() -> str:
    """SHA-256 of what differs from the commit in the files that git knows, whatever their encoding and the user's settings of git."""
    return hashlib.sha256(_git(*_PLAIN_SETTINGS, "diff", *_PLAIN, "HEAD") or b"").hexdigest()


def load(run_id: str) -> tuple[Run, Record]:
    """A finished training run, and its record.

    Raises:
        MlflowException: It is none.
    """
    run = MlflowClient().get_run(run_id)
    try:
        record: Record = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{RECORD}"))
    except (MlflowException, OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} holds no {RECORD}; give the id of a finished run of the entry point train."
        ) from error
    if record["schema"] != SCHEMA:
        raise MlflowException.invalid_parameter_value(
            f"{RECORD} of run {run_id} has the schema {record['schema']}, and this version reads {SCHEMA}; take the version that wrote it."
        )
    return run, record


def differences(run: Run, record: Record, again: Run, repeated: Record) -> list[str]:
    """What two trainings have not in common that could explain other weights; of the first one also what its own record contradicts.

    Args:
        run: Of the first training.
        record: Its ``training.json``.
        again: Of the second training.
        repeated: Its ``training.json``.
    """
    found = [
        f"hyperparameter {key.removeprefix('sb3/')} was {run.data.params.get(key)} in the parameters of the run, and {value} now"
        for key, value in again.data.params.items()
        if key.startswith("sb3/") and key != "sb3/preset" and run.data.params.get(key) != value
    ]
    if INEXACT in run.data.tags:
        found.append(f"run {run.info.run_id} was resumed and not exact: {run.data.tags[INEXACT]}")
    return found + differing(record["facts"], repeated["facts"])


def differing(before: Record, now: Record) -> list[str]:
    """What differs between the facts of two trainings."""
    found = []
    for name, words in _FACTS.items():
        if isinstance(before[name], dict):
            packages = sorted({*before[name], *now[name]})
            found += [
                f"{words} {key} was {before[name].get(key)}, and is {now[name].get(key)}"
                for key in packages
                if before[name].get(key) != now[name].get(key)
            ]
        elif before[name] != now[name]:
            found.append(f"{words} was {before[name]}, and is {now[name]}")
    return found


def _git(*arguments: str) -> bytes | None:
    """What git says of the project that this code lies in; None where it is installed, or was unpacked."""
    project = Path(__file__).parents[1]
    if not (project / "MLproject").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _packages() -> dict[str, str]:
    """The versions of what is installed; what is left of a package that was removed has no name, and is none."""
    versions = {}
    for found in metadata.distributions():
        with suppress(FileNotFoundError):  # where importlib_metadata is loaded, its distributions are among these, and raise it
            said = found.metadata
            if "Name" in said:
                versions[said["Name"]] = said["Version"]
    return versions


def _cpu() -> str:
    """The kind of processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor() or platform.machine())
