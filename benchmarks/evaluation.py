"""What do 100 episodes of CartPole-v1 cost? Ours, the bare steps of the environment, and a pyfunc call a step."""

from __future__ import annotations

from statistics import median
from typing import Any

import click
import gymnasium
import numpy as np

from benchmarks import agents, report
from mlflow_sb3.envs import env_spec, rollout, seeds
from mlflow_sb3.inference.onnx_policy import OnnxPolicy

SEEDS = seeds.episode_seeds(0, "evaluation", 100)
PLAIN_STEPS = 3000
"""Steps for which the wrapper is timed; the time is scaled to all steps, which would take minutes."""


def actions_of_an_episode(policy: OnnxPolicy) -> list[int]:
    """What the agent does in the first episode, so that bare steps need no policy."""
    actions = []
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=SEEDS[0])
    over = False
    while not over:
        actions.append(int(policy.predict(observation)[0]))
        observation, _, terminated, truncated, _ = env.step(actions[-1])
        over = terminated or truncated
    return actions


def bare(env: gymnasium.Env[Any, Any], actions: list[int], episodes: int) -> None:
    for _ in range(episodes):
        env.reset(seed=SEEDS[0])
        for action in actions:
            env.step(action)


def plain(model: Any) -> None:
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=SEEDS[0])
    for _ in range(PLAIN_STEPS):
        action = model.predict(np.array([observation], dtype=np.float64))[0]
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()


@click.command()
@click.option("--repeats", default=7, show_default=True)
def main(repeats: int) -> None:
    """Print the time a step, and the ratios."""
    _, policy, _, wrapper = agents.loaded()
    description = env_spec.spec_to_json(gymnasium.spec("CartPole-v1"))
    actions = actions_of_an_episode(policy)
    steps = len(SEEDS) * len(actions)
    made, unchecked = (
        gymnasium.make("CartPole-v1"),
        gymnasium.make("CartPole-v1", disable_env_checker=True),
    )
    played = rollout.play_episodes(policy, lambda: env_spec.make_from_spec(description), SEEDS)
    times = report.alternate(
        repeats,
        {
            "ours": lambda: report.seconds(
                lambda: rollout.play_episodes(
                    policy, lambda: env_spec.make_from_spec(description), SEEDS
                )
            ),
            "bare": lambda: report.seconds(lambda: bare(made, actions, len(SEEDS))),
            "bare, no checker": lambda: report.seconds(
                lambda: bare(unchecked, actions, len(SEEDS))
            ),
            "bare, unwrapped": lambda: report.seconds(
                lambda: bare(made.unwrapped, actions, len(SEEDS))
            ),
            "pyfunc wrapper": lambda: report.seconds(lambda: plain(wrapper)) * steps / PLAIN_STEPS,
        },
    )
    click.echo(
        f"{report.machine()}\n100 episodes, {int(played.lengths.sum())} steps, bare steps {steps}; median of {repeats}\n"
    )
    click.echo(report.header("what", "µs a step"))
    for name, seconds in times.items():
        click.echo(report.row(name, f"{1e6 * median(seconds) / steps:.1f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "ours / bare env.step", *report.compare(times["ours"], times["bare"], at_most=2.0)
        )
    )
    click.echo(
        report.row(
            "ours / pyfunc wrapper",
            *report.compare(times["ours"], times["pyfunc wrapper"], at_most=1 / 15),
        )
    )


if __name__ == "__main__":
    main()
