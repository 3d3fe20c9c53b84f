"""The stages of the screenshots: calls of entry points, and the pages to show after each call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import click
from mlflow import MlflowClient

EXPERIMENT = "cartpole"
MODEL = "cartpole-v1"
ENTRY_POINT_TAG = "mlflow.project.entryPoint"


@dataclass(frozen=True)
class Store:
    """The content of the server: the ids that the addresses of the pages need."""

    uri: str

    @property
    def client(self) -> MlflowClient:
        """Return a client of the server."""
        return MlflowClient(self.uri)

    @property
    def experiment_id(self) -> str:
        """Return the id of the experiment.

        Raises:
            click.ClickException: The experiment does not exist.
        """
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise click.ClickException(f"The server has no experiment {EXPERIMENT!r}.")
        return str(experiment.experiment_id)

    def find_runs(self, entry_point: str) -> list[str]:
        """Return the ids of the runs of an entry point, the newest first.

        Raises:
            click.ClickException: There is no such run.
        """
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.`{ENTRY_POINT_TAG}` = '{entry_point}'"
        )
        if not runs:
            raise click.ClickException(f"The experiment has no run of {entry_point!r}.")
        return [str(run.info.run_id) for run in runs]


@dataclass(frozen=True)
class Picture:
    """A picture of one page."""

    name: str
    """File name without the extension."""
    find_page: Callable[[Store], str]
    """Return the part of the address after ``#``."""


@dataclass(frozen=True)
class Stage:
    """A call of an entry point, and the pictures to take after it."""

    name: str
    entry_point: str
    parameters: Sequence[str]
    """Values of the option ``-P``."""
    pictures: Sequence[Picture]


def show_run(entry_point: str, tab: str = "") -> Callable[[Store], str]:
    """Return a function that finds the page of the newest run of an entry point."""
    return lambda store: (
        f"/experiments/{store.experiment_id}/runs/{store.find_runs(entry_point)[0]}{tab}"
    )


def show_version(version: int) -> Callable[[Store], str]:
    """Return a function that finds the page of a version."""
    return lambda _: f"/models/{MODEL}/versions/{version}"


def train_parameters(algo: str, timesteps: int) -> tuple[str, ...]:
    """Return the parameters of a short training for ``main``."""
    return (f"algo={algo}", f"timesteps={timesteps}", f"model_name={MODEL}")


def list_stages() -> list[Stage]:
    """Return the steps of the story in their order.

    Version 1 is a weak DQN agent and the first champion. Version 2 is better and is promoted.
    Version 3 is rejected, then forced. Two rollbacks return to version 2 and to version 1.
    """
    move = (f"model_name={MODEL}",)
    return [
        Stage(
            "main",
            "main",
            train_parameters("dqn", 3_000),
            [
                Picture("main-run", show_run("main")),
                Picture("training-run", show_run("train")),
                Picture("training-charts", show_run("train", "/model-metrics")),
                Picture("first-champion", show_version(1)),
            ],
        ),
        Stage(
            "promote",
            "main",
            train_parameters("ppo", 20_000),
            [
                Picture("report", show_run("main", "/artifacts/report.html")),
                Picture("promote-run", show_run("promote")),
                Picture("promote-version-2", show_version(2)),
                Picture("promote-version-1", show_version(1)),
            ],
        ),
        Stage(
            "reject",
            "main",
            train_parameters("ppo", 1_000),
            [
                Picture("reject-main-run", show_run("main")),
                Picture("reject-version-3", show_version(3)),
            ],
        ),
        Stage(
            "force",
            "promote",
            (*move, "version=3", "rule=force", "reason=The demo needs a small network"),
            [Picture("force-version-3", show_version(3))],
        ),
        Stage(
            "rollback",
            "rollback",
            (*move, "reason=The pole fell over"),
            [
                Picture("rollback-version-3", show_version(3)),
                Picture("rollback-version-2", show_version(2)),
            ],
        ),
        Stage(
            "second-rollback",
            "rollback",
            move,
            [
                Picture("second-rollback-version-2", show_version(2)),
                Picture("second-rollback-version-1", show_version(1)),
                Picture("model", lambda _: f"/models/{MODEL}"),
                Picture("experiment", lambda store: f"/experiments/{store.experiment_id}/runs"),
            ],
        ),
    ]


def select_stages(stages: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    """Keep the pictures with these names, and the stages up to the last one that has a picture.

    Args:
        stages: The stages in their order.
        names: Names of pictures. An empty list selects all.

    Raises:
        click.BadParameter: No picture has one of the names.
    """
    known = [picture.name for stage in stages for picture in stage.pictures]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"No picture is named {name!r}. Choose from {known}.")
    selected = [
        replace(stage, pictures=[p for p in stage.pictures if not names or p.name in names])
        for stage in stages
    ]
    unneeded = itertools.takewhile(lambda stage: not stage.pictures, reversed(selected))
    return selected[: len(selected) - len(list(unneeded))]
