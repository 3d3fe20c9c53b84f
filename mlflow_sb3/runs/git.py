"""Read the git commit of the project and its uncommitted changes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

COMMIT_TAG = "mlflow.source.git.commit"
"""Tag in which MLflow stores the commit of a run."""

_DIFF_OPTIONS = (
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
"""Options that override the user's settings, so that equal changes have equal digests."""
_DIFF_SETTINGS = ("-c", "core.quotePath=true", "-c", "diff.suppressBlankEmpty=false")
"""Settings of ``git diff`` that have no option."""


def hash_uncommitted_changes() -> str:
    """Return the SHA-256 digest of the uncommitted changes in tracked files.

    The diff is hashed as bytes, so files may have any encoding. The digest does not depend on the
    user's settings of git.
    """
    return hashlib.sha256(
        run_git(*_DIFF_SETTINGS, "diff", *_DIFF_OPTIONS, "HEAD") or b""
    ).hexdigest()


def run_git(*arguments: str) -> bytes | None:
    """Run git in the project's folder, and return its output without surrounding whitespace.

    Returns:
        The output, or None if git fails or if this package is not part of a clone.
    """
    project = Path(__file__).parents[2]
    if not (project / "MLproject").exists():
        return None
    try:
        completed = subprocess.run(
            ["git", *arguments],  # noqa: S607
            cwd=project,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return completed.stdout.strip()
