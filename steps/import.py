"""Import an agent of SB3, rl_zoo3 or Hugging Face as an MLflow model, and register it.

Reads   SB3's zip file, and the files of rl_zoo3 or Hugging Face next to it. Unpickles them.
Writes  parameters and tags of the run; the model; a version of the registered model with its digest
        and, with --signing-key, its signature; the alias challenger.
"""

from mlflow_sb3.cli.import_agent import import_agent

if __name__ == "__main__":
    import_agent()
