"""Run MLflow for a team: a trial server, containers, schedules and model rollover."""
