"""Define the command ``deliver``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def deliver(folder: Path) -> None:
    """Send the journal in FOLDER to the tracking server of its run."""
    from mlflow_sb3.client import retry
    from mlflow_sb3.tracking import delivery
    from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR
    from mlflow_sb3.training import resume

    try:
        run_id, is_finished = delivery.deliver_journal(folder)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"{folder} contains no journal. Pass the folder that the training printed."
        ) from error
    except delivery.RejectedError as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    except retry.CONNECTION_ERRORS as error:
        raise click.ClickException(
            f"The tracking server did not receive everything: {' '.join(str(error).split())} "
            "Run the command again when the server is reachable."
        ) from error
    click.echo(f"The tracking server has received everything of run {run_id}.")
    if not is_finished and any((folder / SNAPSHOT_DIR).glob("*")):
        command = resume.format_resume_command(run_id, folder.absolute().parent)
        click.echo(f"Resume the training with: {command}")
