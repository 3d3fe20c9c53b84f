"""Compare three ways to keep an agent, over twenty trainings of DQN on CartPole-v1.

The three are the selection of this project, SB3's `EvalCallback`, and the last agent. The callback
does not change the training, so all three agents come from the same one. Each agent plays 100 new
episodes.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks import report

HEADER = ("training seed", "kept by this project", "first best of ten episodes", "last agent")


@dataclass(frozen=True)
class TrainingReturns:
    """Mean and standard deviation of 100 returns, as text, for each way to keep an agent."""

    seed: int
    project: str
    first_best: str
    last: str


def train(seed: int, timesteps: int) -> TrainingReturns:
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import EvalCallback
    from stable_baselines3.common.env_util import make_vec_env

    from mlflow_sb3.algorithms import zoo_presets
    from mlflow_sb3.envs import env_spec, rollout
    from mlflow_sb3.envs.seeds import generate_episode_seeds
    from mlflow_sb3.flavor.sb3_policy import SB3Policy
    from mlflow_sb3.training import loop

    torch.set_num_threads(1)
    description = env_spec.spec_to_json(env_spec.make_env("CartPole-v1").spec)
    hyperparams = zoo_presets.find_preset("dqn", "CartPole-v1").hyperparams
    with TemporaryDirectory() as folder:
        eval_env = make_vec_env("CartPole-v1", seed=seed)
        callback = EvalCallback(
            eval_env,
            eval_freq=2500,
            n_eval_episodes=10,
            best_model_save_path=folder,
            verbose=0,
            warn=False,
        )
        trained = loop.train(
            description,
            "dqn",
            timesteps=timesteps,
            seed=seed,
            hyperparams=hyperparams,
            callbacks=[callback],
        )
        first_best = Path(folder, "best_model.zip").read_bytes()
    last = max(trained.checkpoints, key=lambda checkpoint: checkpoint.step)

    def play(agent: bytes) -> str:
        model = DQN.load(io.BytesIO(agent))
        policy = SB3Policy.from_algorithm(model, model.observation_space, model.action_space)
        seeds = generate_episode_seeds(0, "evaluation", 100)
        return str(
            rollout.summarize_returns(
                rollout.play_episodes(policy, partial(env_spec.make_from_spec, description), seeds)
            )
        )

    return TrainingReturns(seed, play(trained.best.archive), play(first_best), play(last.archive))


@click.command()
@click.option(
    "--seeds", default=20, show_default=True, help="Number of trainings, with the seeds 0, 1, ..."
)
@click.option("--jobs", default=2, show_default=True, help="Number of trainings at the same time.")
@click.option(
    "--timesteps",
    default=50_000,
    show_default=True,
    type=click.IntRange(min=2500),
    help="Environment steps. The minimum allows one evaluation.",
)
@click.option("--only", default="", help="Train only with these seeds, such as 3,7.")
def main(seeds: int, jobs: int, timesteps: int, only: str) -> None:
    """Train and play. Print one row per training, and then the number of perfect agents."""
    chosen = [int(seed) for seed in only.split(",")] if only else list(range(seeds))
    click.echo(report.machine())
    click.echo(report.header(*HEADER))
    with ProcessPoolExecutor(
        jobs, max_tasks_per_child=1, mp_context=report.spawn_context()
    ) as pool:
        waiting = [pool.submit(train, seed, timesteps) for seed in chosen]
        kept = []
        for done in as_completed(waiting):
            kept.append(done.result())
            click.echo(
                report.row(kept[-1].seed, kept[-1].project, kept[-1].first_best, kept[-1].last)
            )
    perfect = [
        sum(value == "500.00 +/- 0.00" for value in column)
        for column in zip(*[(row.project, row.first_best, row.last) for row in kept], strict=True)
    ]
    click.echo(report.row("500.00 +/- 0.00", *(f"{count} of {len(chosen)}" for count in perfect)))
    verdict = report.verdict(met=perfect[0] >= 0.95 * len(chosen))
    click.echo(f"\nTarget: at least 19 of 20 by this project: {verdict}.")


if __name__ == "__main__":
    main()
