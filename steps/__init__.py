"""Run the steps of the MLflow Project: ``python -m steps.<name>``."""
