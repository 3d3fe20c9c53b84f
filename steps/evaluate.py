"""Evaluate a registered agent on new episodes.

Reads   the version --version, or else the version with the alias --alias.
Writes  metrics evaluation/... to the run and to the logged model; a table, a figure and, with
        --video, a video in evaluation/.
"""

from __future__ import annotations

import click

from steps.options import (
    VersionNumber,
    allow_pickle_option,
    boolean_option,
    model_name_option,
    public_key_option,
)
from steps.step import Step


@click.command(cls=Step)
@model_name_option
@click.option(
    "--alias",
    default="champion",
    show_default=True,
    help="Alias of the version to evaluate.",
)
@click.option(
    "--version",
    "number",
    default="",
    type=VersionNumber(),
    help="Number of the version to evaluate.  [default: the version with the alias]",
)
@click.option(
    "--episodes",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of episodes to play.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Base seed of the episodes.",
)
@public_key_option
@allow_pickle_option
@boolean_option("--video", "Record a video of the first episode.")
@boolean_option(
    "--print-returns",
    "Print the return of each episode. evaluation/episodes.json has them too.",
)
def evaluate(
    model_name: str,
    alias: str,
    number: int | None,
    episodes: int,
    seed: int,
    public_key: str,
    allow_pickle: bool,
    video: bool,
    print_returns: bool,
) -> None:
    """Play new episodes with a registered agent and log their returns."""
    from mlflow_sb3.envs import rollout
    from mlflow_sb3.flavor.evaluation_run import evaluate_version
    from mlflow_sb3.registry import versions

    version = versions.find_version(model_name, alias=alias, number=number)
    played = evaluate_version(
        version,
        episodes,
        seed=seed,
        public_key=public_key or None,
        allow_pickle=allow_pickle,
        has_video=video,
    )
    if print_returns:
        click.echo(f"Episode returns: {played.returns.tolist()}")
    click.echo(rollout.describe_episodes(played))


if __name__ == "__main__":
    evaluate()
