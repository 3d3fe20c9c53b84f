"""Repeat a training on the commit of its run, and compare the weights.

Reads   training.json and the tags of the run; the commit from this clone or its remote origin.
Writes  a child run of the entry point train; the tags mlflow_sb3.reproduction and
        mlflow_sb3.reproduced; differences.json.
"""

from mlflow_sb3.cli.reproduce import reproduce

if __name__ == "__main__":
    reproduce()
