"""Train DQN with an EvalCallback, without this project. The benchmarks compare with this program.

With `--whole`, also log a pyfunc wrapper, register it, load it and play 100 episodes. The
hyperparameters are those of the project's preset.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import gymnasium
import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor


def train(folder: Path, timesteps: int, seed: int) -> Path:
    """Train, and keep the first checkpoint with the best mean return over ten episodes."""
    model = DQN(
        "MlpPolicy",
        Monitor(gymnasium.make("CartPole-v1")),
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
    )
    callback = EvalCallback(
        Monitor(gymnasium.make("CartPole-v1")),
        eval_freq=2500,
        n_eval_episodes=10,
        best_model_save_path=str(folder),
        verbose=0,
    )
    model.learn(timesteps, callback=callback)
    return folder / "best_model.zip"


def log_and_play(agent: Path, timesteps: int, episodes: int = 100) -> None:
    """Log the agent as a pyfunc, register it, load it, and play with one call per step."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from benchmarks import wrapper

    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.float64), (-1, 4))]),
        Schema([TensorSpec(np.dtype(np.int64), (-1,))]),
    )
    with mlflow.start_run():
        mlflow.log_params({"algo": "dqn", "env": "CartPole-v1", "timesteps": timesteps})
        mlflow.pyfunc.log_model(
            name="agent",
            python_model=wrapper.PlainWrapper(),
            artifacts={"agent": str(agent)},
            signature=signature,
            registered_model_name="plain",
            code_paths=[str(Path(__file__).parent)],
        )
        mlflow.MlflowClient().set_registered_model_alias("plain", "champion", "1")
        model = mlflow.pyfunc.load_model("models:/plain@champion")
        env = gymnasium.make("CartPole-v1")
        returns = []
        for episode in range(episodes):
            observation, _ = env.reset(seed=episode)
            total, done = 0.0, False
            while not done:
                action = model.predict(np.array([observation], dtype=np.float64))[0]
                observation, reward, terminated, truncated, _ = env.step(action)
                total += float(reward)
                done = terminated or truncated
            returns.append(total)
        mlflow.log_metrics(
            {"mean_reward": float(np.mean(returns)), "std_reward": float(np.std(returns))}
        )
    click.echo(f"Mean reward: {np.mean(returns):.2f} +/- {np.std(returns):.2f}")


@click.command()
@click.option(
    "--timesteps",
    default=50_000,
    show_default=True,
    type=click.IntRange(min=2500),
    help="Environment steps. The minimum allows one evaluation.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the training.")
@click.option("--whole", is_flag=True, help="Also log, register, load and play.")
def main(timesteps: int, seed: int, whole: bool) -> None:
    """Train DQN on CartPole-v1."""
    with tempfile.TemporaryDirectory() as folder:
        agent = train(Path(folder), timesteps, seed)
        if whole:
            log_and_play(agent, timesteps)


if __name__ == "__main__":
    main()
