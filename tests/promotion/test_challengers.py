from __future__ import annotations

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion import challengers
from mlflow_sb3.registry import versions


@pytest.fixture
def experiment_id(store: str) -> str:
    """Experiment with five training runs; four of them have a version of the model ``agent``."""
    client = MlflowClient()
    client.create_registered_model("agent")
    experiment_id = client.create_experiment("trainings")
    for score in (1.0, 5.0, 3.0, 4.0, 2.0):
        run_id = client.create_run(experiment_id).info.run_id
        client.log_metric(run_id, challengers.SCORE_METRIC, score)
        if score != 4.0:
            client.create_model_version("agent", f"runs:/{run_id}/agent", run_id)
    return str(experiment_id)


@pytest.mark.parametrize("page_size", [1, 2, 100])
@pytest.mark.parametrize(
    "tag",
    [(versions.STATE_TAG, versions.ROLLED_BACK), (versions.ROLLED_BACK_TAG, "a run")],
    ids=["state", "earlier release"],
)
def test_the_best_versions_are_found_with_any_page_size(
    experiment_id: str, page_size: int, tag: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challengers, "_PAGE_SIZE", page_size)
    MlflowClient().set_model_version_tag("agent", "3", *tag)
    versions.set_alias("agent", "champion", 2)

    best = challengers.find_best_challengers("agent", "champion", experiment_id, 3)

    assert [version.number for version in best] == [4, 1]


def test_top_limits_the_number_of_versions(experiment_id: str) -> None:
    best = challengers.find_best_challengers("agent", "champion", experiment_id, 2)

    assert [version.number for version in best] == [2, 3]


def test_the_latest_version_of_a_run_counts(experiment_id: str) -> None:
    client = MlflowClient()
    run_id = client.get_model_version("agent", "2").run_id
    client.create_model_version("agent", f"runs:/{run_id}/agent", run_id)

    best = challengers.find_best_challengers("agent", "champion", experiment_id, 1)

    assert [version.number for version in best] == [5]


def test_an_experiment_without_versions_is_refused(experiment_id: str) -> None:
    other = MlflowClient().create_experiment("other")

    with pytest.raises(
        MlflowException, match=f"agent has no challenger from experiment {other}: no training run"
    ):
        challengers.find_best_challengers("agent", "champion", other, 3)
    assert experiment_id != other
