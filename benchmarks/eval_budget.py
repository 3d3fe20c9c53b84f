"""Measure how much time a training spends on the evaluation and the selection of checkpoints.

The same training runs twice: with the default budget, and with an evaluation of the last checkpoint
only. The difference is what evaluation and selection cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import click

from benchmarks import report
from mlflow_sb3.algorithms import zoo_presets
from mlflow_sb3.envs import env_spec
from mlflow_sb3.training import loop
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.loop import TrainingResult

FLOOR_SECONDS = 10.0
MAX_SHARE = 0.2
TRAININGS = {
    "Ant-v5": ("ppo", 1024),
    "highway-fast-v0": ("dqn", 200),
    "CartPole-v1": ("dqn", 50_000),
}
"""Algorithm and environment steps, by environment."""


@dataclass(frozen=True)
class Cost:
    """Wall times of two trainings in seconds, and what the first one evaluated."""

    with_evaluation: float
    without: float
    checkpoints: int
    race_episodes: int

    @property
    def seconds(self) -> float:
        """Seconds that evaluation and selection add."""
        return self.with_evaluation - self.without


def measure(env_id: str) -> Cost:
    algo, timesteps = TRAININGS[env_id]
    description = env_spec.compose_spec(env_id)
    hyperparams = zoo_presets.find_preset(algo, env_id).hyperparams
    results: list[TrainingResult] = []

    def train(settings: EvaluationSettings) -> None:
        results.append(
            loop.train(
                description,
                algo,
                timesteps=timesteps,
                hyperparams=hyperparams,
                evaluation=settings,
            )
        )

    without = report.seconds(lambda: train(EvaluationSettings(selection="none", episodes=1)))
    with_evaluation = report.seconds(lambda: train(EvaluationSettings()))
    used = results[-1].evaluation
    return Cost(with_evaluation, without, len(used.steps or []) + 1, used.race_episodes or 0)


@click.command()
@click.argument("env_ids", nargs=-1, type=click.Choice(list(TRAININGS)))
def main(env_ids: tuple[str, ...]) -> None:
    """Train in each environment. Print the times and the number of evaluations."""
    click.echo(report.machine())
    columns = ("learning s", "evaluation and selection s", "checkpoints", "episodes of the race")
    click.echo(report.header("training", *columns, "allowed s", "verdict"))
    for env_id in env_ids or TRAININGS:
        algo, timesteps = TRAININGS[env_id]
        cost = measure(env_id)
        allowed = FLOOR_SECONDS + MAX_SHARE * cost.with_evaluation
        click.echo(
            report.row(
                f"{algo}, {env_id}, {timesteps} steps",
                f"{cost.without:.1f}",
                f"{cost.seconds:.1f}",
                cost.checkpoints,
                cost.race_episodes,
                f"{allowed:.1f}",
                report.verdict(met=cost.seconds <= allowed),
            )
        )


if __name__ == "__main__":
    main()
