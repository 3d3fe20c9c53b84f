"""Send logged data that the tracking server did not receive during a training.

Usage: ``python -m steps.deliver FOLDER``, with the folder that the training printed.

Reads   the journal and the files in the folder.
Writes  the missing metrics, parameters, tags, files and the status of the run; for a run that did
        not finish, also its snapshots.
"""

from mlflow_sb3.cli.deliver import deliver

if __name__ == "__main__":
    deliver()
