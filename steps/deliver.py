"""Deliver what a training could not, because the tracking server was away: ``python -m steps.deliver FOLDER``.

Reads   the journal and the files in the folder that the training named.
Writes  what the run lacks: metrics, parameters, tags, files, its status, and its last snapshot if it did not finish.
"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def deliver(folder: Path) -> None:
    """Deliver the journal in FOLDER to the tracking server that its run belongs to."""
    from mlflow_sb3.client import retry
    from mlflow_sb3.tracking import run_logger
    from mlflow_sb3.training import resume

    try:
        run_id, finished = run_logger.deliver_journal(folder)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"{folder} holds no journal; give the folder that the training named."
        ) from error
    except run_logger.RefusedError as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    except retry.CONNECTION_ERRORS as error:
        raise click.ClickException(
            f"not everything could be delivered: {' '.join(str(error).split())} Call again."
        ) from error
    click.echo(
        f"Run {run_id} has everything"
        + (
            "."
            if finished
            else f"; to go on with it: {resume.resume_command(run_id, folder.absolute().parent)}"
        )
    )


if __name__ == "__main__":
    deliver()
