"""What git says about the project's code."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

COMMIT_TAG = "mlflow.source.git.commit"

_PLAIN = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--full-index",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--unified=3",
    "--inter-hunk-context=0",
    "--diff-algorithm=myers",
    "--indent-heuristic",
    "--no-relative",
    "-O/dev/null",
)
"""Options of a diff that a user's settings of git may say otherwise."""

_PLAIN_SETTINGS = ("-c", "core.quotePath=true", "-c", "diff.suppressBlankEmpty=false")
"""The same, of what a diff has no options for."""


def changes_digest() -> str:
    """SHA-256 of what differs from the commit in the files that git knows, whatever their encoding and the user's settings of git."""
    return hashlib.sha256(run_git(*_PLAIN_SETTINGS, "diff", *_PLAIN, "HEAD") or b"").hexdigest()


def run_git(*arguments: str) -> bytes | None:
    """What git says of the project that this code lies in; None where it is installed, or was unpacked."""
    project = Path(__file__).parents[2]
    if not (project / "MLproject").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
