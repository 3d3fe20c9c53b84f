"""Roll back an alias from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_sb3.lifecycle.results import RollbackResult
from mlflow_sb3.promotion.rollback import roll_back
from mlflow_sb3.runs import step_run

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def rollback(
    name: str,
    alias: str = "champion",
    *,
    reason: str = "",
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
) -> RollbackResult:
    """Give an alias back to the version that had it before.

    A second call goes back one more version. The rollback has a run of its own. If a run is
    active, it is a child run.

    Args:
        name: Name of the registered model.
        alias: Alias to move back.
        reason: Reason for the rollback, stored in the record.
        public_key: PEM file of the Ed25519 public key that must have signed the restored version.
        allow_pickle: As in ``load_policy``.

    Raises:
        MlflowException: The registered model does not exist, no earlier version exists, that
            version cannot be served, or the user has no permission.
    """
    with step_run.start_step_run():
        record = roll_back(
            name, alias, why=reason, public_key=public_key, allow_pickle=allow_pickle
        )
    return RollbackResult.from_record(record)
