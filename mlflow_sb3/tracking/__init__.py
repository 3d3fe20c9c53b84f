"""What a training writes to MLflow: metrics, journal and snapshots, sent in the background."""
