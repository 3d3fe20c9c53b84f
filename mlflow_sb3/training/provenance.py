"""Record the code and the machine of a training, and list the differences of two trainings."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Run

from mlflow_sb3.runs.git import hash_uncommitted_changes, run_git
from mlflow_sb3.training.training_record import (
    TRAINING_JSON,
    FreshEpisodes,
    PolicyDigests,
    TrainingFacts,
    TrainingRecord,
)

if TYPE_CHECKING:
    from mlflow_sb3.tracking.run_logger import RunLogger
    from mlflow_sb3.training.config import TrainingConfig
    from mlflow_sb3.training.loop import TrainingResult

POLICY_DIGEST_TAG = "mlflow_sb3.policy_digest"
"""Tag of a training run: digest of the selected weights; see ``loop.compute_weights_digest``."""
INEXACT_TAG = "mlflow_sb3.inexact"
"""Tag of a resumed run: reasons why its weights may differ from an uninterrupted training."""
_LABELS = {
    "commit": "commit",
    "changes": "digest of the uncommitted changes",
    "python": "Python",
    "cpu": "CPU",
    "torch_capability": "PyTorch instruction set",
    "torch_threads": "thread count",
}
"""Names of the attributes of ``TrainingFacts`` in messages."""


def log_provenance(
    result: TrainingResult, config: TrainingConfig, facts: TrainingFacts, run_logger: RunLogger
) -> None:
    """Log ``training.json`` and the digest of the selected weights.

    Args:
        result: Result of the training.
        config: Configuration of the training.
        facts: Result of ``collect_facts`` at the start of the training.
        run_logger: Logger of the training run.
    """
    digests = PolicyDigests(kept=result.best_digest, last=result.last_digest)
    episodes = FreshEpisodes(
        competitors=sum(bool(checkpoint.returns) for checkpoint in result.checkpoints),
        first=result.evaluation.episodes,
        returns=result.best.returns,
    )
    record = TrainingRecord(config, facts, digests, episodes)
    run_logger.log_file(TRAINING_JSON, json.dumps(record.to_json(), indent=2))
    run_logger.set_tags({POLICY_DIGEST_TAG: result.best_digest})


def collect_facts(torch_threads: int) -> TrainingFacts:
    """Return the code and the machine of this process.

    Args:
        torch_threads: Threads of PyTorch during the training.
    """
    import torch

    return TrainingFacts(
        commit=(run_git("rev-parse", "HEAD") or b"").decode() or None,
        changes=hash_uncommitted_changes(),
        python=platform.python_version(),
        packages=_list_packages(),
        cpu=_read_cpu_model(),
        torch_capability=torch.backends.cpu.get_cpu_capability(),
        torch_threads=torch_threads,
    )


def list_differences(
    run: Run, record: TrainingRecord, new_run: Run, new_record: TrainingRecord
) -> list[str]:
    """Describe the differences between two trainings that could explain different weights.

    Hyperparameters are read from the parameters of the runs, not from the records. If someone
    changed the hyperparameters in ``training.json`` of the first run before the second training
    used them, the changes are listed.

    Args:
        run: Run of the first training.
        record: Its ``training.json``.
        new_run: Run of the second training.
        new_record: Its ``training.json``.
    """
    params = run.data.params
    differences = [
        f"hyperparameter {key.removeprefix('sb3/')} was {params.get(key)} "
        f"in the parameters of the run, and is {value} now"
        for key, value in new_run.data.params.items()
        if key.startswith("sb3/") and key != "sb3/preset" and params.get(key) != value
    ]
    if INEXACT_TAG in run.data.tags:
        differences.append(
            f"run {run.info.run_id} was resumed and is not exact: {run.data.tags[INEXACT_TAG]}"
        )
    return differences + compare_facts(record.facts, new_record.facts)


def compare_facts(before: TrainingFacts, now: TrainingFacts) -> list[str]:
    """Describe the differences in code and machine between two trainings."""
    differences = [
        f"{label} was {getattr(before, name)}, and is {getattr(now, name)}"
        for name, label in _LABELS.items()
        if getattr(before, name) != getattr(now, name)
    ]
    return differences + [
        f"package {name} was {before.packages.get(name)}, and is {now.packages.get(name)}"
        for name in sorted({*before.packages, *now.packages})
        if before.packages.get(name) != now.packages.get(name)
    ]


def _list_packages() -> dict[str, str]:
    """Return the versions of the installed packages, by name."""
    versions = {}
    for distribution in metadata.distributions():
        # A package that was removed incompletely has no name. If importlib_metadata is loaded, it
        # raises an error for such a package.
        with suppress(FileNotFoundError):
            if "Name" in (fields := distribution.metadata):
                versions[fields["Name"]] = fields["Version"]
    return versions


def _read_cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
