"""Summarize a call of ``main``: what was trained, the verdict, and who is champion."""

from __future__ import annotations

from dataclasses import dataclass

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from mlflow_sb3.client import connection
from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.promotion import summary_text
from mlflow_sb3.promotion.promotion_run import VERDICT_TAG
from mlflow_sb3.registry.model_version import VERSION_TAG, Version
from mlflow_sb3.reports.number_format import format_number
from mlflow_sb3.runs import run_name

_COPIED_METRICS = ("eval/kept_", "promotion/", "evaluation/")
"""Prefixes of the metrics of the steps that the run of ``main`` gets too."""
_COPIED_PARAMS = ("sb3/env", "sb3/algo", "sb3/seed", "sb3/timesteps")
"""Parameters of ``train`` that the run of ``main`` gets too."""


@dataclass(frozen=True)
class Summary:
    """The runs of the steps of a finished ``main``.

    Attributes:
        name: Name of the run without the outcome, such as ``main CartPole-v1 dqn seed 0``.
        champion: The champion after the promotion; None if there is none.
        trained: Run of ``train``.
        logged: Run of ``log_model``.
        promoted: Run of ``promote``.
        evaluated: Run of ``evaluate``.
    """

    name: str
    champion: Version | None
    trained: Run
    logged: Run
    promoted: Run
    evaluated: Run

    @property
    def outcome(self) -> str:
        """The decision about the new version, such as ``v2 rejected``."""
        version, verdict = self.logged.data.tags[VERSION_TAG], self.promoted.data.tags[VERDICT_TAG]
        word = summary_text.WORDS.get(verdict, verdict)
        if verdict == "promote" and str(self.champion) != version:
            word = summary_text.AWAITS_APPROVAL
        return f"v{version.rpartition('/')[2]} {word}"

    @property
    def steps(self) -> dict[str, Run]:
        """The runs of the steps by the names of their entry points."""
        return {
            "train": self.trained,
            "log_model": self.logged,
            "promote": self.promoted,
            "evaluate": self.evaluated,
        }

    def describe(self) -> dict[str, str]:
        """Return the parts of the summary by their headings."""
        trained, evaluated = self.trained.data.metrics, self.evaluated.data.metrics
        prefix = "none yet; evaluated " if self.champion is None else ""
        return {
            "trained": f"{self.name.removeprefix('main ')}: kept the checkpoint of step "
            f"{trained['eval/kept_step']:.0f} with a mean return of "
            f"{format_number(trained['eval/kept_mean_reward'])}",
            "version": self.logged.data.tags[VERSION_TAG],
            "verdict": f"{self.outcome}. {self.promoted.data.tags.get(MLFLOW_RUN_NOTE, '')}",
            "champion": f"{prefix}{self.evaluated.data.tags[VERSION_TAG]}: mean return "
            f"{format_number(evaluated['evaluation/mean_return'])} +/- "
            f"{format_number(evaluated['evaluation/std_return'])} in "
            f"{evaluated['evaluation/episodes']:.0f} new episodes",
            "times": ", ".join(
                f"{name} {format_duration(run)}" for name, run in self.steps.items()
            ),
        }

    def log(self, run_id: str) -> None:
        """Log the summary to the run of ``main``: name, description, and metrics of the steps."""
        values: dict[str, float] = {}
        for run in (self.trained, self.promoted, self.evaluated):
            values |= {
                key: value
                for key, value in run.data.metrics.items()
                if key.startswith(_COPIED_METRICS)
            }
        text = "\n\n".join(f"**{key}**: {value}" for key, value in self.describe().items())
        tags = run_name.build_tags(f"{self.name} -> {self.outcome}", text)
        tags[VERDICT_TAG] = self.promoted.data.tags[VERDICT_TAG]
        now = now_ms()
        params = self.trained.data.params
        MlflowClient().log_batch(
            run_id,
            # The parameters of main lack what a file of parameters or a preset decided.
            params=[Param(key, params[key]) for key in _COPIED_PARAMS if key in params],
            metrics=[Metric(key, value, now, 0) for key, value in values.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )


def format_summary(summary: Summary) -> str:
    """Return the summary of the active run as lines for the console."""
    parts = summary.describe() | {"run": _get_run_address()}
    width = max(map(len, parts))
    lines = (f"  {key:<{width}}  {value}" for key, value in parts.items())
    return "\n".join(["== summary", *lines])


def _get_run_address() -> str:
    """Return the address of the active run in MLflow's UI, or its id if there is no server."""
    run = mlflow.active_run()
    if run is None:
        return "none"
    uri = connection.redact_uri(mlflow.get_tracking_uri())
    if not uri.startswith("http"):
        return str(run.info.run_id)
    return f"{uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def format_duration(run: Run) -> str:
    """Return how long a run took, such as ``2 min 5 s``."""
    seconds = round(((run.info.end_time or now_ms()) - run.info.start_time) / 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
