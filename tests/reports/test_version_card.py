from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.generated_text import MAX_LENGTH
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports import version_card
from mlflow_sb3.reports.card_facts import CardFacts
from tests.conftest import Keys
from tests.reports.cards import FULL_FACTS, build_card

CARD = build_card().to_markdown()
VERSION = Version("race", 3, "m-1", "9a9a", "d" * 64, "s" * 88)
TITLES = [
    "**Returns**",
    "**Use**",
    "**Environment**",
    "**Training**",
    "**Known limits**",
    "**Packages**",
    "**Hyperparameters**",
]


def read_description(version: Version) -> str:
    entity = MlflowClient().get_model_version(version.name, str(version.number))
    return str(entity.description)


def list_titles(text: str) -> list[str]:
    return [line for line in text.splitlines() if line in TITLES]


def test_the_section_has_the_card_and_what_is_known_about_the_version() -> None:
    text = version_card.add_card("", CARD, VERSION)

    assert text.startswith(
        "**Model card**: DQN agent for Race-v1 <!-- mlflow-sb3: card -->\n\nA policy that DQN"
    )
    assert "The whole card is the file `MODEL_CARD.md` of the model." in text
    assert f"| digest&ensp; | `{'d' * 64}` |" in text
    assert f"| signature&ensp; | `{'s' * 88}` |" in text
    assert "| model&ensp; | `m-1` |" in text
    assert list_titles(text) == TITLES


def test_a_version_without_a_signature_has_no_row_for_it() -> None:
    unsigned = Version("race", 3, "m-1", "9a9a", None)

    text = version_card.add_card("", CARD, unsigned)

    assert "| digest" not in text
    assert "| signature" not in text
    assert "| model&ensp; | `m-1` |" in text


def test_the_calls_name_the_version() -> None:
    text = version_card.add_card("", CARD, VERSION)

    assert 'load_policy("models:/race/3")' in text
    assert "serve -m models:/race/3 " in text


def test_the_picture_is_read_from_the_model() -> None:
    text = version_card.add_card("", CARD, VERSION)

    assert (
        "![Learning curve](ajax-api/2.0/mlflow/logged-models/m-1/artifacts/files"
        "?artifact_file_path=learning_curve.png)"
    ) in text


def test_hyperparameters_are_left_out_first() -> None:
    many = {f"parameter_{number}": "1" for number in range(200)}
    card = build_card(CardFacts(FULL_FACTS.training, hyperparams=many)).to_markdown()

    text = version_card.add_card("", card, VERSION)

    assert len(text) <= MAX_LENGTH
    assert "**Packages**" in text
    assert "**Hyperparameters**" not in text


def test_shortening_leaves_the_digest_and_the_text_of_users() -> None:
    text: str | None = version_card.add_card("mine", CARD, VERSION) + "\n\nyours"
    steps = []
    while text is not None:
        steps.append(text)
        text = version_card.shorten(text)

    assert [list_titles(step) for step in steps] == [
        TITLES[:count] for count in range(len(TITLES), -1, -1)
    ]
    assert "| digest&ensp; |" in steps[-1]
    assert steps[-1].startswith("mine\n\n**Model card**: ")
    assert steps[-1].endswith("<!-- mlflow-sb3: end -->\n\nyours")


def test_a_description_without_space_is_kept() -> None:
    assert version_card.add_card("m" * MAX_LENGTH, CARD, VERSION) == "m" * MAX_LENGTH
    assert version_card.shorten("mine") is None


def test_a_registered_version_has_its_card(signed: Version) -> None:
    text = read_description(signed)

    assert text.startswith("**Model card**: PPO agent for CartPole-v1 <!--")
    assert f"`{signed.digest}`" in text
    assert f"`{signed.signature}`" in text
    assert f'load_policy("models:/{signed}")' in text


def test_a_card_is_written_once(registered: Version) -> None:
    MlflowClient().update_model_version(
        "agent", "1", read_description(registered).replace("A policy", "Our policy")
    )

    version_card.write_card(registered)

    assert "Our policy" in read_description(registered)
    assert read_description(registered).count("**Model card**") == 1


def test_a_lost_card_is_written_behind_the_text_of_users(registered: Version) -> None:
    MlflowClient().update_model_version("agent", "1", "Mine.")

    version_card.write_card(registered)

    assert read_description(registered).startswith("Mine.\n\n**Model card**: PPO agent")


def test_a_model_of_an_earlier_release_has_no_card(registered: Version) -> None:
    location = mlflow.get_logged_model(registered.model_id).artifact_location
    Path(location.removeprefix("file://"), "MODEL_CARD.md").unlink()
    MlflowClient().update_model_version("agent", "1", "")

    version_card.write_card(registered)

    assert not MlflowClient().get_model_version("agent", "1").description


@pytest.mark.usefixtures("store")
def test_a_model_is_registered_in_a_run_with_its_card(ppo: PPO, keys: Keys) -> None:
    with mlflow.start_run() as run:
        mlflow_sb3.log_model(
            ppo, name="agent", registered_model_name="agent", signing_key=keys.private
        )

    text = read_description(versions.find_version("agent", number=1))
    assert f"| MLflow run&ensp; | `{run.info.run_id}` |" in text
