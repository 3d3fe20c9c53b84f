"""Choose the run of a function that always records its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow

from mlflow_sb3.runs import step_run


@contextmanager
def use_run() -> Iterator[str]:
    """Use the active run, or start a run as a step does.

    A run that this function starts ends as FINISHED, FAILED or KILLED; see
    ``step_run.start_step_run``. An active run stays active, also after an error.

    Yields:
        The run id.

    Raises:
        MlflowException: A run must be started, but the tracking server cannot be reached.
    """
    active = mlflow.active_run()
    if active is not None:
        yield active.info.run_id
        return
    with step_run.start_step_run() as run_id:
        yield run_id
