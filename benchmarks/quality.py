"""Is the kept agent perfect? Twenty trainings of DQN on CartPole-v1, and 100 fresh episodes with what each of them kept.

Every training is also watched by SB3's `EvalCallback`, which keeps the first agent that is best in ten episodes, as is common.
It does not change the way that training goes, so that the three agents compared are of the same training.
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
class Kept:
    """Mean and standard deviation of 100 fresh returns, for each of three ways to keep an agent."""

    seed: int
    ours: str
    first_best: str
    last: str


def train(seed: int, timesteps: int) -> Kept:
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import EvalCallback
    from stable_baselines3.common.env_util import make_vec_env

    from mlflow_sb3.algorithms import zoo_presets
    from mlflow_sb3.envs import env_spec, rollout
    from mlflow_sb3.envs.seeds import episode_seeds
    from mlflow_sb3.flavor.sb3_policy import SB3Policy
    from mlflow_sb3.training import loop

    torch.set_num_threads(1)
    description = env_spec.spec_to_json(env_spec.make_env("CartPole-v1").spec)
    hyperparams = zoo_presets.find_preset("dqn", "CartPole-v1").hyperparams
    with TemporaryDirectory() as folder:
        eval_env = make_vec_env("CartPole-v1", seed=seed)
        watcher = EvalCallback(
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
            callbacks=[watcher],
        )
        first_best = Path(folder, "best_model.zip").read_bytes()
    last = max(trained.candidates, key=lambda candidate: candidate.step)

    def play(agent: bytes) -> str:
        model = DQN.load(io.BytesIO(agent))
        policy = SB3Policy.of(model, model.observation_space, model.action_space)
        seeds = episode_seeds(0, "evaluation", 100)
        return str(
            rollout.summarize_returns(
                rollout.play_episodes(policy, partial(env_spec.make_from_spec, description), seeds)
            )
        )

    return Kept(seed, play(trained.kept.agent), play(first_best), play(last.agent))


@click.command()
@click.option("--seeds", default=20, show_default=True, help="Trainings, with the seeds 0, 1, ...")
@click.option("--jobs", default=2, show_default=True, help="Trainings at once.")
@click.option(
    "--timesteps",
    default=50_000,
    show_default=True,
    type=click.IntRange(min=2500),
    help="At least one evaluation.",
)
@click.option("--only", default="", help="These seeds instead, such as 3,7.")
def main(seeds: int, jobs: int, timesteps: int, only: str) -> None:
    """Train, keep and play; print a row as each training ends, then the counts."""
    chosen = [int(seed) for seed in only.split(",")] if only else list(range(seeds))
    click.echo(report.machine())
    click.echo(report.header(*HEADER))
    with ProcessPoolExecutor(
        jobs, max_tasks_per_child=1, mp_context=report.fresh_processes()
    ) as pool:
        waiting = [pool.submit(train, seed, timesteps) for seed in chosen]
        kept = []
        for done in as_completed(waiting):
            kept.append(done.result())
            click.echo(report.row(kept[-1].seed, kept[-1].ours, kept[-1].first_best, kept[-1].last))
    perfect = [
        sum(value == "500.00 +/- 0.00" for value in column)
        for column in zip(*[(k.ours, k.first_best, k.last) for k in kept], strict=True)
    ]
    click.echo(report.row("500.00 +/- 0.00", *(f"{count} of {len(chosen)}" for count in perfect)))
    click.echo(
        f"\nTarget: at least 19 of 20 by this project: {report.verdict(met=perfect[0] >= 0.95 * len(chosen))}."
    )


if __name__ == "__main__":
    main()
