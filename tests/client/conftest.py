"""A tracking server without default permissions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.server import trial as trial_server
from deploy.server.process import find_free_port
from deploy.server.trial import TrialServer


@pytest.fixture(scope="session")
def closed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialServer]:
    """A server with NO_PERMISSIONS by default, and the users owner and other."""
    with trial_server.run_trial(
        tmp_path_factory.mktemp("closed"),
        port=find_free_port(),
        default_permission="NO_PERMISSIONS",
        users=("owner", "other"),
    ) as trial:
        yield trial
