"""The steps as Python functions: train, evaluate, promote and roll back, in any MLflow run."""
