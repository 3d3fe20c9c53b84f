"""Measure 100 episodes of CartPole-v1.

Compare this project with the environment steps alone and with one pyfunc call per step.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import click
import gymnasium
import numpy as np

from benchmarks import agents, report
from mlflow_sb3.envs import env_spec, rollout, seeds
from mlflow_sb3.inference.onnx_policy import OnnxPolicy

SEEDS = seeds.generate_episode_seeds(0, "evaluation", 100)
PLAIN_STEPS = 3000
"""Number of steps to time the wrapper for. All steps would take minutes, so the time is scaled."""


def first_episode_actions(policy: OnnxPolicy) -> list[int]:
    """Return the actions of the first episode, so that the bare steps need no policy."""
    actions = []
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=SEEDS[0])
    done = False
    while not done:
        actions.append(int(policy.predict(observation)[0]))
        observation, _, terminated, truncated, _ = env.step(actions[-1])
        done = terminated or truncated
    return actions


def step_env(env: gymnasium.Env[Any, Any], actions: list[int], episodes: int) -> None:
    for _ in range(episodes):
        env.reset(seed=SEEDS[0])
        for action in actions:
            env.step(action)


def play_with_wrapper(model: Any) -> None:
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=SEEDS[0])
    for _ in range(PLAIN_STEPS):
        action = model.predict(np.array([observation], dtype=np.float64))[0]
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()


@click.command()
@click.option("--repeats", default=7, show_default=True, help="Measurements of each.")
def main(repeats: int) -> None:
    """Print the time per step and the ratios."""
    _, policy, _, wrapper = agents.load_agents()
    description = env_spec.spec_to_json(gymnasium.spec("CartPole-v1"))
    actions = first_episode_actions(policy)
    steps = len(SEEDS) * len(actions)
    env = gymnasium.make("CartPole-v1")
    unchecked = gymnasium.make("CartPole-v1", disable_env_checker=True)
    played = rollout.play_episodes(policy, lambda: env_spec.make_from_spec(description), SEEDS)
    times = report.alternate(
        repeats,
        {
            "mlflow-sb3": lambda: report.seconds(
                lambda: rollout.play_episodes(
                    policy, lambda: env_spec.make_from_spec(description), SEEDS
                )
            ),
            "env.step": lambda: report.seconds(lambda: step_env(env, actions, len(SEEDS))),
            "env.step, no checker": lambda: report.seconds(
                lambda: step_env(unchecked, actions, len(SEEDS))
            ),
            "env.step, unwrapped": lambda: report.seconds(
                lambda: step_env(env.unwrapped, actions, len(SEEDS))
            ),
            "pyfunc wrapper": lambda: (
                report.seconds(lambda: play_with_wrapper(wrapper)) * steps / PLAIN_STEPS
            ),
        },
    )
    click.echo(
        f"{report.machine()}\n100 episodes, {int(played.lengths.sum())} steps, "
        f"env.step alone {steps} steps; median of {repeats}\n"
    )
    click.echo(report.header("what", "µs per step"))
    for name, seconds in times.items():
        click.echo(report.row(name, f"{1e6 * median(seconds) / steps:.1f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "mlflow-sb3 / env.step",
            *report.compare(times["mlflow-sb3"], times["env.step"], at_most=2.0),
        )
    )
    click.echo(
        report.row(
            "mlflow-sb3 / pyfunc wrapper",
            *report.compare(times["mlflow-sb3"], times["pyfunc wrapper"], at_most=1 / 15),
        )
    )


if __name__ == "__main__":
    main()
