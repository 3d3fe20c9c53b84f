"""Where the weights of an agent come from: the recipe, the code, the packages and the processor, and what differs between two runs."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.runs.git import changes_digest, run_git

if TYPE_CHECKING:
    from mlflow_sb3.tracking.run_logger import RunLogger
    from mlflow_sb3.training.config import TrainingConfig
    from mlflow_sb3.training.loop import TrainingResult

TRAINING_JSON = "training.json"
POLICY_DIGEST_TAG = "mlflow_sb3.policy_digest"
"""Tag of a training run: SHA-256 of the weights of the kept agent; see ``loop.weights_digest``."""
INEXACT_TAG = "mlflow_sb3.inexact"
"""Tag of a training run: why it does not end as it would have without the interruption."""
TRAINING_SCHEMA = 1
_FACTS = {
    "commit": "commit",
    "changes": "digest of the uncommitted changes",
    "python": "Python",
    "packages": "package",
    "cpu": "CPU",
    "torch_capability": "PyTorch's instructions",
    "torch_threads": "thread count",
}

TrainingRecord = dict[str, Any]


def log_provenance(
    trained: TrainingResult, recipe: TrainingConfig, found: TrainingRecord, tracker: RunLogger
) -> None:
    """Write down how an agent came about; ``found`` is what ``facts`` said when its training began."""
    digests = {"kept": trained.digest, "last": trained.last_digest}
    tracker.file(
        TRAINING_JSON,
        json.dumps(
            {
                "schema": TRAINING_SCHEMA,
                "recipe": recipe.to_json(),
                "facts": found,
                "policy": digests,
            },
            indent=2,
        ),
    )
    tracker.tags({POLICY_DIGEST_TAG: trained.digest})


def collect_facts(torch_threads: int) -> TrainingRecord:
    """What decides about the last bits, beside the recipe: the code and the machine of this process, as JSON values."""
    import torch

    return {
        "commit": (run_git("rev-parse", "HEAD") or b"").decode() or None,
        "changes": changes_digest(),
        "python": platform.python_version(),
        "packages": _packages(),
        "cpu": _cpu(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch_threads,
    }


def load_training_record(run_id: str) -> tuple[Run, TrainingRecord]:
    """A finished training run, and its record.

    Raises:
        MlflowException: It is none.
    """
    run = MlflowClient().get_run(run_id)
    try:
        record: TrainingRecord = json.loads(
            mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{TRAINING_JSON}")
        )
    except (MlflowException, OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} holds no {TRAINING_JSON}; give the id of a finished run of the entry point train."
        ) from error
    if record["schema"] != TRAINING_SCHEMA:
        raise MlflowException.invalid_parameter_value(
            f"{TRAINING_JSON} of run {run_id} has the schema {record['schema']}, and this version reads {TRAINING_SCHEMA}; take the version that wrote it."
        )
    return run, record


def differences(
    run: Run, record: TrainingRecord, again: Run, repeated: TrainingRecord
) -> list[str]:
    """What two trainings have not in common that could explain other weights; of the first one also what its own record contradicts.

    Args:
        run: Of the first training.
        record: Its ``loop.json``.
        again: Of the second training.
        repeated: Its ``loop.json``.
    """
    found = [
        f"hyperparameter {key.removeprefix('sb3/')} was {run.data.params.get(key)} in the parameters of the run, and {value} now"
        for key, value in again.data.params.items()
        if key.startswith("sb3/") and key != "sb3/preset" and run.data.params.get(key) != value
    ]
    if INEXACT_TAG in run.data.tags:
        found.append(
            f"run {run.info.run_id} was resumed and not exact: {run.data.tags[INEXACT_TAG]}"
        )
    return found + differing_facts(record["facts"], repeated["facts"])


def differing_facts(before: TrainingRecord, now: TrainingRecord) -> list[str]:
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


def _packages() -> dict[str, str]:
    """The versions of what is installed; what is left of a package that was removed has no name, and is none."""
    versions = {}
    for found in metadata.distributions():
        with suppress(
            FileNotFoundError
        ):  # where importlib_metadata is loaded, its distributions are among these, and raise it
            said = found.metadata
            if "Name" in said:
                versions[said["Name"]] = said["Version"]
    return versions


def _cpu() -> str:
    """The kind of processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
