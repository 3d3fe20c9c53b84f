"""What does the gate cost beside an evaluation of the same episodes? With its looks and bounds, and as a whole promotion."""

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
from mlflow_sb3.promotion import matchup, promote
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version

GATE = Gate()


def register(model: DQN) -> Version:
    info = mlflow_sb3.log_model(model, name="agent", registered_model_name="agent")
    return versions.find_version("agent", number=int(str(info.registered_model_version)))


def clumsy() -> DQN:
    """Drifts off in some episodes, so that the pairs differ and every look is taken."""
    model = agents.create_agent()
    gains = torch.tensor([-0.3, 0.0, 10.0, 2.0])
    with torch.no_grad():
        model.q_net.q_net.get_parameter("0.weight")[:2] = torch.stack([gains, -gains])
    return model


def evaluate(policies: list[Policy], description: str, seeds: list[int]) -> None:
    for policy in policies:
        rollout.play_episodes(policy, lambda: env_spec.make_from_spec(description), seeds)


@click.command()
@click.option("--repeats", default=7, show_default=True)
def main(repeats: int) -> None:
    """Print the seconds, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment("gate", artifact_location=f"{folder}/artifacts")
        )
        with mlflow.start_run():
            champion, challenger = register(clumsy()), register(agents.create_agent())
        arranged = matchup.arrange_matchup(challenger, champion, GATE)
        played = arranged.play(GATE)
        seeds = played.challenger.seeds.tolist()

        def whole() -> None:
            versions.set_alias("agent", "champion", champion.number)
            with mlflow.start_run():
                promote.promote_version(challenger, promote.PromotionOptions(gate=GATE))

        times = report.alternate(
            repeats,
            {
                "gate": lambda: report.seconds(lambda: arranged.play(GATE)),
                "evaluation": lambda: report.seconds(
                    lambda: evaluate(
                        [arranged.challenger, arranged.champion], arranged.environment, seeds
                    )
                ),
                "promotion": lambda: report.seconds(whole),
            },
        )
    steps = int(played.challenger.lengths.sum() + played.champion.lengths.sum())
    click.echo(
        f"{report.machine()}\n{len(seeds)} pairs, {steps} steps, verdict {played.verdict}; median of {repeats}\n"
    )
    click.echo(report.header("what", "s"))
    for name, seconds in times.items():
        click.echo(report.row(name, f"{median(seconds):.2f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "gate / evaluation", *report.compare(times["gate"], times["evaluation"], at_most=1.3)
        )
    )
    click.echo(
        report.row(
            "whole promotion / evaluation",
            *report.compare(times["promotion"], times["evaluation"], at_most=1.3),
        )
    )


if __name__ == "__main__":
    main()
