"""Run steps in MLflow runs: handle signals, send heartbeats, and find previous attempts."""
