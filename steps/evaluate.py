"""Play fresh episodes with a registered agent.

Reads   the model version behind --version, or else behind --alias.
Writes  metrics evaluation/... on the run and the model, the table, the histogram and the video in evaluation/.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click
import mlflow
from tqdm import tqdm

from steps.step import Step, VersionNumber, public_key_option


@click.command(cls=Step)
@click.option(
    "--model-name", default="cartpole-v1-dqn", show_default=True, help="Registered model."
)
@click.option("--alias", default="champion", show_default=True, help="Alias to load.")
@click.option(
    "--version",
    "number",
    default="",
    type=VersionNumber(),
    help="Version to load instead of the alias.",
)
@click.option(
    "--episodes",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Episodes to play.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of the stream that gives every episode its seed.",
)
@public_key_option
@click.option(
    "--video", default=False, show_default=True, type=bool, help="Film the first episode."
)
def evaluate(
    model_name: str,
    alias: str,
    number: int | None,
    episodes: int,
    seed: int,
    public_key: str,
    video: bool,
) -> None:
    """Play EPISODES fresh episodes with an agent and log their returns."""
    from mlflow_sb3.client import permissions
    from mlflow_sb3.envs import rollout
    from mlflow_sb3.envs.seeds import episode_seeds
    from mlflow_sb3.flavor import registered_agent
    from mlflow_sb3.registry import versions
    from mlflow_sb3.reports import plots
    from mlflow_sb3.reports.video import record_episode

    version = versions.find_version(model_name, alias=alias, number=number)
    agent = registered_agent.load_agent(version, public_key=public_key or None)
    seeds = episode_seeds(seed, "evaluation", episodes)
    with tqdm(total=episodes, desc="evaluating", unit="episode", mininterval=1) as bar:
        played = agent.play(seeds, on_episode=bar.update)
    summary = rollout.summarize_returns(played)
    mlflow.set_tag("mlflow_sb3.version", str(version))
    permissions.log_metrics(summary.metrics("evaluation/"), version.model_id)
    mlflow.log_table(played.table(), "evaluation/episodes.json")
    mlflow.log_figure(
        plots.plot_returns(played, f"{version}: {episodes} episodes"), "evaluation/returns.png"
    )
    if video:
        with TemporaryDirectory() as folder:
            film = record_episode(agent.policy, agent.environment, seeds[0], Path(folder))
            mlflow.log_artifact(str(film), "evaluation")
    click.echo(f"Episode returns: {played.returns.tolist()}")
    click.echo(f"Mean reward: {summary}")


if __name__ == "__main__":
    evaluate()
