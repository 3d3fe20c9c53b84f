from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_sb3.reports import run_sections
from mlflow_sb3.reports.html_report import Section

pytestmark = pytest.mark.usefixtures("store")

CHECKPOINTS: dict[str, list[Any]] = {
    "step": [100, 200, 300],
    "training_mean_return": [5.0, 9.0, None],
    "fresh_episodes": [0, 10, 10],
    "fresh_mean_return": [None, 8.0, 9.5],
    "fresh_min_return": [None, 6.0, 7.0],
    "fresh_max_return": [None, 9.0, 10.0],
    "kept": [False, False, True],
}


def log_training(table: dict[str, list[Any]]) -> Run:
    with mlflow.start_run() as run:
        mlflow.log_params({"sb3/env": "CartPole-v1", "sb3/seed": 0})
        rows = list(zip(*table.values(), strict=True))
        mlflow.log_dict({"columns": list(table), "data": rows}, "candidates.json")
        mlflow.set_tag("mlflow.loggedArtifacts", '[{"path": "candidates.json", "type": "table"}]')
    return mlflow.get_run(run.info.run_id)


def log_evaluation(returns: list[float], video: Path | None = None) -> Run:
    with mlflow.start_run() as run:
        mlflow.set_tag("mlflow_sb3.version", "agent/2")
        mlflow.log_metrics({"evaluation/mean_return": sum(returns) / len(returns)})
        mlflow.log_table(
            {"seed": [1] * len(returns), "return": returns}, "evaluation/episodes.json"
        )
        if video is not None:
            mlflow.log_artifact(str(video), "evaluation")
    return mlflow.get_run(run.info.run_id)


def get_rows(section: Section) -> list[tuple[str, ...]]:
    (table,) = section.tables
    return [tuple(row) for row in table.rows]


def test_a_training_has_its_settings_and_the_kept_checkpoint() -> None:
    section = run_sections.build_training_section(log_training(CHECKPOINTS))

    assert section is not None
    assert get_rows(section) == [
        ("environment", "CartPole-v1"),
        ("seed", "0"),
        ("evaluated checkpoints", "3"),
        ("kept checkpoint", "step 300"),
        ("its mean return", "9.50"),
    ]
    (picture,) = section.pictures
    legend = picture.figure.axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert "kept: step 300, mean return 9.50" in labels


def test_a_run_that_is_no_training_has_no_section() -> None:
    with mlflow.start_run() as run:
        pass

    assert run_sections.build_training_section(run) is None


def test_an_evaluation_has_a_histogram_and_its_metrics() -> None:
    section = run_sections.build_evaluation_section(log_evaluation([1.0, 2.0, 6.0]))

    assert section.heading == "Evaluation of agent/2"
    assert get_rows(section) == [("mean return", "3.00")]
    assert section.pictures[0].alt == (
        "Histogram of the returns of agent/2 in 3 new episodes: mean 3.00, lowest 1.00, "
        "highest 6.00"
    )


def test_equal_returns_are_a_sentence_instead_of_a_histogram() -> None:
    section = run_sections.build_evaluation_section(log_evaluation([5.0, 5.0]))

    assert (section.sentences, section.pictures) == (["All 2 episodes have a return of 5.00."], ())


def test_a_small_video_is_in_the_section_and_a_large_one_is_named(tmp_path: Path) -> None:
    video = tmp_path / "episode.mp4"
    video.write_bytes(b"x" * run_sections.MAX_VIDEO_SIZE)
    small = run_sections.build_video_section(log_evaluation([1.0], video))
    video.write_bytes(b"x" * (run_sections.MAX_VIDEO_SIZE + 50_000))
    run = log_evaluation([1.0], video)
    large = run_sections.build_video_section(run)

    assert small is not None
    assert small.video is not None
    assert len(small.video.content) == run_sections.MAX_VIDEO_SIZE
    assert large is not None
    assert large.video is None
    (sentence,) = large.sentences
    assert sentence == (
        "The first evaluated episode of agent/2 is the artifact evaluation/episode.mp4 of run "
        f"{run.info.run_id}. It has 2.0 MB."
    )


def test_an_evaluation_without_a_video_has_no_such_section() -> None:
    assert run_sections.build_video_section(log_evaluation([1.0])) is None
