"""Define the command ``evaluate``."""

from __future__ import annotations

import click

from mlflow_sb3.cli.options import (
    VersionNumber,
    allow_pickle_option,
    boolean_option,
    config_option,
    model_name_option,
    public_key_option,
)
from mlflow_sb3.cli.step import Step


@click.command(cls=Step)
@config_option
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
