"""The files of an ``agent`` folder, and the card among them: what it says of the others."""

from __future__ import annotations

import hashlib
import json
from typing import Any

AGENT = "agent"
CARD = "agent.json"
GRAPH = "policy.onnx"
ARCHIVE = "agent.zip"
STATISTICS = "vec_normalize.json"


def check_digest(card: dict[str, Any], name: str, content: bytes) -> None:
    """Refuse a file of an agent that is not the one which its card was written for."""
    found, saved = hashlib.sha256(content).hexdigest(), card["digests"][name]
    if found != saved:
        raise ValueError(f"{name} has the digest {found}, but {saved} was saved: the file has changed; save the agent again.")


def described(card: dict[str, Any]) -> str | None:
    """The ``EnvSpec`` JSON in a card."""
    description = card.get("environment")
    return None if description is None else json.dumps(description)
