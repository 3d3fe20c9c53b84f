"""Train an agent and keep its best checkpoint, or resume an interrupted training.

Reads   rl_zoo3's hyperparameters, or the agent of --from-model; the last snapshot of --resume.
Writes  parameters, metrics, agent/, candidates.json, training.json; snapshots/ while it trains.
"""

from mlflow_sb3.cli.train import train

if __name__ == "__main__":
    train()
