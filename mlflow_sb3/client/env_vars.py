"""Set environment variables temporarily.

Some settings of MLflow, such as the timeout of HTTP requests, exist only as environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def override_env(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside the context, and restore their old values afterwards.

    All threads of a process share one environment. Two threads must not use this at the same time.

    Args:
        variables: Values by variable name.
    """
    old_values = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in old_values.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
