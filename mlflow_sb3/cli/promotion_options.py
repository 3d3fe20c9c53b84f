"""Define the options of the entry point ``promote``, in groups."""

from __future__ import annotations

import click

from mlflow_sb3.cli.options import (
    Command,
    OptionalValue,
    VersionNumber,
    add_options,
    model_name_option,
)

alpha_per_reign_option = click.option(
    "--alpha-per-reign",
    default="",
    type=OptionalValue(click.FLOAT),
    help="Bound for the probability that any challenger that is not better is promoted, until the "
    "next promotion. Each further challenger gets a smaller share. It replaces --alpha.  "
    "[default: test each challenger with --alpha]",
)


def challenger_options(command: Command) -> Command:
    """Add the options that select the challengers and the alias."""
    return add_options(
        command,
        model_name_option,
        click.option(
            "--version",
            "number",
            default="",
            type=VersionNumber(),
            help="Version to promote.  [default: the version with the alias challenger]",
        ),
        click.option(
            "--alias", default="champion", show_default=True, help="Alias that the winner gets."
        ),
        click.option(
            "--candidates",
            default="challenger",
            show_default=True,
            type=click.Choice(["challenger", "best"]),
            help="challenger: run the gate for one version. best: run it for the best trained "
            "versions.",
        ),
        click.option(
            "--top",
            default=3,
            show_default=True,
            type=click.IntRange(min=1),
            help="Largest number of versions for --candidates best.",
        ),
        click.option(
            "--experiment",
            default="",
            help="Name of the experiment for --candidates best.  [default: experiment of this run]",
        ),
    )


def gate_options(command: Command) -> Command:
    """Add the settings of the gate."""
    return add_options(
        command,
        click.option(
            "--episodes",
            default=400,
            show_default=True,
            type=click.IntRange(min=2),
            help="Largest number of pairs of episodes to play.",
        ),
        click.option(
            "--alpha",
            default=0.05,
            show_default=True,
            type=float,
            help="Nominal upper bound for the probability of promoting a challenger that is not "
            "better.",
        ),
        alpha_per_reign_option,
        click.option(
            "--min-improvement",
            default=0.0,
            show_default=True,
            type=float,
            help="Mean return by which the challenger must exceed the champion.",
        ),
        click.option(
            "--min-return",
            default="",
            type=OptionalValue(click.FLOAT),
            help="Mean return that the challenger must reach.  [default: no limit]",
        ),
        click.option(
            "--environment",
            default="",
            help="Environment that both agents play in: a Gymnasium id, EnvSpec JSON, or "
            "challenger or champion for the training environment of that agent.  "
            "[default: the training environment, which must be the same for both]",
        ),
        click.option(
            "--rule",
            default="test",
            show_default=True,
            type=click.Choice(["test", "force"]),
            help="test: run the gate. force: promote without a gate.",
        ),
        click.option("--reason", default="", help="Reason for --rule force."),
    )
