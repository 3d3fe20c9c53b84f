"""MLflow servers for a team: a trial server on this machine, and containers for permanent use."""
