"""How long do a gate and a promotion take, relative to an evaluation of the same episodes?"""

from __future__ import annotations

import tempfile
from statistics import median

import click
import mlflow
import torch
from stable_baselines3 import DQN

import mlflow_sb3
from benchmarks import agents, report
from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.inference.policy_protocol import Policy
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.matchup import arrange_matchup
from mlflow_sb3.promotion.promote import PromotionOptions, promote_version
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version

GATE = Gate()
MAX_RATIO = 1.3
"""Largest acceptable time relative to the evaluation."""


def register_agent(model: DQN) -> Version:
    info = mlflow_sb3.log_model(model, name="agent", registered_model_name="agent")
    return versions.find_version("agent", number=int(str(info.registered_model_version)))


def create_drifting_agent() -> DQN:
    """Create an agent that fails in some episodes, so that the gate needs all of its looks."""
    model = agents.create_agent()
    gains = torch.tensor([-0.3, 0.0, 10.0, 2.0])
    with torch.no_grad():
        model.q_net.q_net.get_parameter("0.weight")[:2] = torch.stack([gains, -gains])
    return model


def evaluate_policies(policies: list[Policy], environment: str, seeds: list[int]) -> None:
    for policy in policies:
        rollout.play_episodes(policy, lambda: env_spec.make_from_spec(environment), seeds)


@click.command()
@click.option("--repeats", default=7, show_default=True, help="Number of measurements of each.")
def main(repeats: int) -> None:
    """Measure gate, evaluation and promotion in turn, and print times and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment("gate", artifact_location=f"{folder}/artifacts")
        )
        with mlflow.start_run():
            champion = register_agent(create_drifting_agent())
            challenger = register_agent(agents.create_agent())
        matchup = arrange_matchup(challenger, champion, GATE)
        comparison = matchup.play()
        seeds = comparison.challenger.seeds.tolist()
        policies = [matchup.challenger, matchup.champion]

        def promote() -> None:
            versions.set_alias("agent", "champion", champion.number)
            with mlflow.start_run():
                promote_version(challenger, PromotionOptions(gate=GATE))

        times = report.alternate(
            repeats,
            {
                "gate": lambda: report.seconds(matchup.play),
                "evaluation": lambda: report.seconds(
                    lambda: evaluate_policies(policies, matchup.environment, seeds)
                ),
                "promotion": lambda: report.seconds(promote),
            },
        )
    steps = int(comparison.challenger.lengths.sum() + comparison.champion.lengths.sum())
    click.echo(
        f"{report.machine()}\n{len(seeds)} pairs, {steps} steps, verdict {comparison.verdict}; "
        f"median of {repeats}\n"
    )
    print_times(times)


def print_times(times: dict[str, list[float]]) -> None:
    """Print the median times, and the ratios to the evaluation."""
    click.echo(report.header("what", "s"))
    for name, seconds in times.items():
        click.echo(report.row(name, f"{median(seconds):.2f}"))
    columns = ("median (range over the pairs)", "target", "verdict")
    click.echo("\n" + report.header("ratio", *columns))
    for label, name in (("gate", "gate"), ("whole promotion", "promotion")):
        ratio = report.compare(times[name], times["evaluation"], at_most=MAX_RATIO)
        click.echo(report.row(f"{label} / evaluation", *ratio))


if __name__ == "__main__":
    main()
