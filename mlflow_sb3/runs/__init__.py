"""The lifecycle of a step's MLflow run: signals, heartbeat, previous attempts and local state."""
