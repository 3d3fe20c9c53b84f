"""Give an alias back to the version that had it before.

Reads   the alias history of the registered model, and the version to restore.
Writes  promotion.json; tags and the description of the version; the aliases champion and
        previous-champion.
"""

from mlflow_sb3.cli.rollback import rollback

if __name__ == "__main__":
    rollback()
