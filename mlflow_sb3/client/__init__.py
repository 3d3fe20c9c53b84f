"""Access to the MLflow server: connection check, permissions and retries."""
