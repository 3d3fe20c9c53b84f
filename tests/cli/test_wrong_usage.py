"""The calls and messages in docs/errors.md."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatchcase

import pytest

from mlflow_sb3.cli import group
from mlflow_sb3.registry.model_version import Version
from tests import ROOT
from tests.cli.commands import get_last_run, invoke

PAGE = (ROOT / "docs" / "errors.md").read_text()
ROWS = re.findall(r"^\| `(.+?)` \| `(.+)` \|$", PAGE, re.MULTILINE)


def test_the_page_has_at_least_twenty_rows() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("call", "message"), ROWS, ids=[call for call, _ in ROWS])
def test_wrong_usage_gives_the_message_of_the_page(
    champion: Version, call: str, message: str
) -> None:
    name, *options = shlex.split(call)

    result = invoke(group.load_command(name), *options)

    pattern = re.sub(r"[\[\]?*]", lambda match: f"[{match[0]}]", message).replace("…", "*")
    assert result.exit_code != 0
    assert result.stdout == ""
    assert fnmatchcase(result.stderr, f"Error: {pattern}\n"), result.stderr
    assert result.stderr.count("\n") == 1
    assert get_last_run().info.status == "FAILED"
