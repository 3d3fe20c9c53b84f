"""Settings of MLflow that stand in the environment alone: obeyed, or changed for the time of one call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def temporary_env(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there before; for one thread at a time, as a process has one environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
