"""Describe a registered version by tags."""

from __future__ import annotations

from mlflow_sb3.reports.number_format import format_number


def describe_version(params: dict[str, str], score: float | None) -> dict[str, str]:
    """Return the tags of a version that tell people what it is.

    Args:
        params: Parameters of the training run.
        score: Mean return of the kept agent over fresh episodes, if it is known.
    """
    names = ("env", "algo", "seed", "timesteps")
    facts = {f"mlflow_sb3.{name}": params.get(f"sb3/{name}", "") for name in names}
    return facts | {"mlflow_sb3.score": format_number(score)}
