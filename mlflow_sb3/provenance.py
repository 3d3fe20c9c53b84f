"""Where the weights of an agent come from: the recipe, the code, the packages and the processor, and what differs between two runs."""

from __future__ import annotations

import json
import platform
import subprocess
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
COMMIT = "mlflow.source.git.commit"
SCHEMA = 1
_PACKAGES = ("stable-baselines3", "sb3-contrib", "torch", "gymnasium", "numpy", "mlflow")
_FACTS = {
    "commit": "commit",
    "changes": "uncommitted changes",
    "python": "Python",
    "packages": "package",
    "cpu": "CPU",
    "torch_capability": "PyTorch's instructions",
    "torch_threads": "thread count",
}

Record = dict[str, Any]


def log(trained: Trained, recipe: Recipe, tracker: Tracker) -> None:
    """Write down how an agent came about."""
    digests = {"kept": trained.digest, "last": trained.last_digest}
    record = {"schema": SCHEMA, "recipe": recipe.to_json(), "facts": facts(recipe.torch_threads), "policy": digests}
    tracker.file(RECORD, json.dumps(record, indent=2))
    tracker.tags({DIGEST: trained.digest})


def facts(torch_threads: int) -> dict[str, Any]:
    """What decides about the last bits, beside the recipe: the code and the machine of this process."""
    import torch

    return {
        "commit": _git("rev-parse", "HEAD"),
        "changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "cpu": _cpu(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch_threads,
    }


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
    for name, words in _FACTS.items():
        before, now = record["facts"][name], repeated["facts"][name]
        if isinstance(before, dict):
            found += [f"{words} {key} was {before[key]}, and is {now.get(key)}" for key in before if before[key] != now.get(key)]
        elif before != now:
            found.append(f"{words} was {before}, and is {now}")
    return found


def _git(*arguments: str) -> str | None:
    """What git says of the project that this code lies in; None where it is installed, or was unpacked."""
    project = Path(__file__).parents[1]
    if not (project / "MLproject").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    """The kind of processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor() or platform.machine())
