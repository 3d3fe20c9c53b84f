"""Describe a training and an evaluation in sections of a report, from what their runs logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.registry.model_version import VERSION_TAG
from mlflow_sb3.reports.html_report import Picture, Section, Table, Video
from mlflow_sb3.reports.learning_curve import CurvePoint, FreshReturns, plot_learning_curve
from mlflow_sb3.reports.number_format import format_number
from mlflow_sb3.reports.returns_plot import describe_equal_returns, plot_returns

CHECKPOINTS_TABLE = "candidates.json"
"""Artifact of a training run: table of the checkpoints."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""MLflow's tag for the tables of a run, in the format of ``mlflow.log_table``."""
EPISODES_TABLE = "evaluation/episodes.json"
"""Artifact of an evaluation: table of the episodes."""
VIDEO = "evaluation/episode.mp4"
"""Artifact of an evaluation: video of the first episode."""
MAX_VIDEO_SIZE = 2_000_000
"""Largest size of a video in a report, in bytes."""
_HEADINGS = ("", "value")
_TRAINING_PARAMS = {
    "sb3/env": "environment",
    "sb3/algo": "algorithm",
    "sb3/seed": "seed",
    "sb3/timesteps": "environment steps",
}
_EVALUATION_METRICS = {
    "mean_return": "mean return",
    "std_return": "standard deviation",
    "min_return": "lowest return",
    "max_return": "highest return",
    "mean_length": "mean episode length in steps",
    "success_rate": "success rate",
}


def build_training_section(run: Run) -> Section | None:
    """Return the learning curve and the settings of a training.

    Args:
        run: Run that trained or logged an agent.

    Returns:
        The section. None if the run has no table of checkpoints.

    Raises:
        KeyError: The table was written by an earlier release and lacks a column.
    """
    if CHECKPOINTS_TABLE not in run.data.tags.get(TABLES_TAG, ""):
        return None
    points = _read_points(run)
    kept = next(point for point in points if point.is_kept)
    mean = format_number(kept.training_mean if kept.fresh is None else kept.fresh.mean)
    params = run.data.params
    rows = [(label, params[key]) for key, label in _TRAINING_PARAMS.items() if params.get(key)]
    rows += [
        ("evaluated checkpoints", str(len(points))),
        ("kept checkpoint", f"step {kept.step}"),
        ("its mean return", mean),
    ]
    picture = Picture(
        plot_learning_curve(points, ""),
        alt=f"Mean returns of {len(points)} checkpoints by environment step. The checkpoint of "
        f"step {kept.step} with a mean return of {mean} was kept.",
        caption="Circles: evaluations during the training. Squares: new episodes after it, "
        "with their range.",
    )
    return Section(
        "Training", pictures=[picture], tables=[Table("Settings and result", _HEADINGS, rows)]
    )


def build_evaluation_section(run: Run) -> Section:
    """Return the histogram and the summary of evaluated episodes.

    Args:
        run: Run of ``evaluate``.

    Raises:
        MlflowException: The run has no table of episodes.
    """
    returns = np.asarray(_read_columns(run, EPISODES_TABLE)["return"], np.float64)
    version = run.data.tags.get(VERSION_TAG, "the agent")
    values = {key: run.data.metrics.get(f"evaluation/{key}") for key in _EVALUATION_METRICS}
    rows = [
        (_EVALUATION_METRICS[key], format_number(value))
        for key, value in values.items()
        if value is not None
    ]
    episodes = "episode" if len(returns) == 1 else "episodes"
    table = Table(f"{len(returns)} new {episodes}", _HEADINGS, rows)
    heading = f"Evaluation of {version}"
    sentence = describe_equal_returns(returns)
    if sentence is not None:
        return Section(heading, [sentence], tables=[table])
    picture = Picture(
        plot_returns(returns, ""),
        alt=f"Histogram of the returns of {version} in {len(returns)} new {episodes}: "
        f"mean {format_number(float(returns.mean()))}, lowest {format_number(float(returns.min()))}"
        f", highest {format_number(float(returns.max()))}",
    )
    return Section(heading, pictures=[picture], tables=[table])


def build_video_section(run: Run) -> Section | None:
    """Return the video of an evaluated episode, or a sentence that names it if it is too large.

    Args:
        run: Run of ``evaluate``.

    Returns:
        The section. None if no video was recorded.
    """
    folder = VIDEO.rpartition("/")[0]
    files = MlflowClient().list_artifacts(run.info.run_id, folder)
    size = next((file.file_size or 0 for file in files if file.path == VIDEO), None)
    if size is None:
        return None
    version = run.data.tags.get(VERSION_TAG, "the agent")
    label = f"The first evaluated episode of {version}"
    if size > MAX_VIDEO_SIZE:
        sentence = f"{label} is the artifact {VIDEO} of run {run.info.run_id}."
        return Section("Video", [f"{sentence} It has {size / 1e6:.1f} MB."])
    with TemporaryDirectory() as folder:
        uri = f"{run.info.artifact_uri}/{VIDEO}"
        path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        content = Path(path).read_bytes()
    return Section("Video", video=Video(content, label, f"{VIDEO} of run {run.info.run_id}"))


def _read_points(run: Run) -> list[CurvePoint]:
    table = _read_columns(run, CHECKPOINTS_TABLE)
    names = ("step", "training_mean_return", "kept")
    fresh_names = ("fresh_mean_return", "fresh_min_return", "fresh_max_return")
    points = []
    for index in range(len(table["step"])):
        step, mean, is_kept = (table[name][index] for name in names)
        values = [table[name][index] for name in fresh_names]
        fresh = None if None in values else FreshReturns(*values)
        points.append(CurvePoint(step, math.nan if mean is None else mean, fresh, is_kept))
    return points


def _read_columns(run: Run, path: str) -> dict[str, list[Any]]:
    """Read an artifact in the format of ``mlflow.log_table``."""
    content = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{path}"))
    columns = zip(*content["data"], strict=True)
    return {name: list(values) for name, values in zip(content["columns"], columns, strict=True)}
