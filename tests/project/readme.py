"""The commands and scripts of README.md."""

from __future__ import annotations

import re

from tests import ROOT

README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TABLE = re.findall(r"^\| [a-z ]+ \| `([^`]+)` \|", README, re.MULTILINE)


def command(begins: str) -> str:
    """The one command of the README that begins so."""
    found = {line.strip() for line in [*SHELL, *TABLE] if line.startswith(begins)}
    assert len(found) == 1, f"{begins!r} begins {sorted(found)}"
    return str(found.pop())
