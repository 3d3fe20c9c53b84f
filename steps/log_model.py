"""Log the agent of a training run as an MLflow model, and register it.

Reads   the folder agent/ and the parameters of the training run.
Writes  the model into the training run; a version of the registered model with its digest and, with
        --signing-key, its signature; the alias challenger.
"""

from mlflow_sb3.cli.log_model import log_model

if __name__ == "__main__":
    log_model()
