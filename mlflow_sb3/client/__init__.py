"""Connect to the MLflow server: check the connection and permissions, and repeat requests."""
