"""Run the console command: ``python -m mlflow_sb3``."""

from mlflow_sb3.cli.group import main

if __name__ == "__main__":
    main()
