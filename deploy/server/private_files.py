"""Write the files of the trial server that only the current user may read."""

from __future__ import annotations

import secrets
from pathlib import Path


def password_file(user: str, folder: Path) -> Path:
    """Return the path of the file with the password of a user."""
    return folder / f"{user}.password"


def choose_password(user: str, folder: Path, chosen: str | None) -> str:
    """Return the chosen password, else the saved password, else a new password. Save it.

    Args:
        user: Name of the user.
        folder: Folder of the password file.
        chosen: Password to set. None keeps the saved password.
    """
    path = password_file(user, folder)
    password = chosen or (path.read_text() if path.exists() else secrets.token_urlsafe(18))
    write_private(path, password)
    return password


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically with a file of mode 600."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)
