"""Write the ``README.md`` of an exported agent."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from mlflow_sb3.algorithms.algorithms import ALGORITHMS
from mlflow_sb3.exchange.zoo_config import ZooConfig
from mlflow_sb3.inference.agent_files import AGENT_ZIP, AgentInfo

_PACKAGES = ("stable_baselines3", "sb3_contrib", "torch", "gymnasium")
"""Packages whose versions the page lists."""


def build_readme(info: AgentInfo, zoo: ZooConfig) -> str:
    """Return Markdown text with the header of a Hugging Face model card.

    Args:
        info: Description of the agent.
        zoo: The agent in the notation of rl_zoo3.
    """
    name = ALGORITHMS[zoo.algo].class_name
    archive = f"{zoo.algo}-{zoo.env_name}.zip"
    facts: dict[str, Any] = {
        "algorithm": f"`{info.algorithm}`",
        "environment": f"`{zoo.env_id}`",
        "training steps": zoo.config["n_timesteps"],
        "observations normalized": "yes" if "normalize" in zoo.config else "no",
        f"SHA-256 of `{archive}`": f"`{info.digests[AGENT_ZIP]}`",
    } | {package: info.versions[package] for package in _PACKAGES if package in info.versions}
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    packages = "".join(
        f" --gym-packages {shlex.quote(package)}" for package in zoo.args["gym_packages"]
    )
    return f"""---
{yaml.safe_dump(_build_header(zoo)).strip()}
---

# {name} agent for {zoo.env_id}

| fact | value |
| --- | --- |
{rows}

Play it in a copy of this folder:

```bash
python -m rl_zoo3.enjoy --algo {zoo.algo} --env {shlex.quote(zoo.env_id)} --folder .{packages}
```

Both rl_zoo3 and SB3 unpickle the files, so load them only if you trust their author.
"""


def _build_header(zoo: ZooConfig) -> dict[str, Any]:
    kind = "reinforcement-learning"
    return {
        "library_name": "stable-baselines3",
        "pipeline_tag": kind,
        "tags": [zoo.env_id, f"deep-{kind}", kind, "stable-baselines3"],
    }
