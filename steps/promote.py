"""Promote a version of a registered model to champion if it is better than the current champion.

Reads   the challenger and the champion from the registry; with --replay, the record of a run.
Writes  promotion.json, the table and the figure in promotion/, metrics promotion/...; tags and
        the description of the version; the aliases champion, previous-champion and challenger.
"""

from mlflow_sb3.cli.promote import promote

if __name__ == "__main__":
    promote()
