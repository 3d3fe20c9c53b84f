"""Run the whole workflow: train, log_model, promote and evaluate, each in a child run.

Reads   the inputs of the steps; the finished steps and the last snapshot of an unfinished call with
        the same parameters and code.
Writes  four child runs; tags with the version and the verdict; preflight.txt.
"""

from mlflow_sb3.cli.main import main

if __name__ == "__main__":
    main()
