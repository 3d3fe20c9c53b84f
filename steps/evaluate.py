"""Evaluate a registered agent on new episodes.

Reads   the version --version, or else the version with the alias --alias.
Writes  metrics evaluation/... to the run and to the logged model; a table, a figure and, with
        --video, a video in evaluation/.
"""

from mlflow_sb3.cli.evaluate import evaluate

if __name__ == "__main__":
    evaluate()
