"""Tests of the temporary PostgreSQL server."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from click import ClickException

from deploy.server import postgres


def test_a_missing_program_is_reported_with_the_package_to_install() -> None:
    with pytest.raises(ClickException, match=r"'no-such-program' is not installed\. Install"):
        postgres.find_program("no-such-program")


@pytest.mark.postgres
def test_a_new_database_accepts_connections(tmp_path: Path) -> None:
    with postgres.run_postgres(tmp_path / "postgresql.log") as server:
        server.create_database("auth")
        engine = sa.create_engine(server.uri("auth"))
        with engine.connect() as connection:
            name = connection.scalar(sa.text("select current_database()"))
        engine.dispose()

    assert name == "auth"
