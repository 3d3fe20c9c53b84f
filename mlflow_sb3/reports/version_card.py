"""Write the card of a model into the description of its version.

The card is a generated section behind the history of decisions. It adds what is known only after
the model was logged: its digest and its signature. If the description becomes too long, the last
sections of the card are left out.
"""

from __future__ import annotations

import logging
import re

import mlflow

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry.generated_text import MAX_LENGTH, Description
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports.markdown import format_code, format_table
from mlflow_sb3.reports.model_card import HEADING, LEARNING_CURVE, MODEL_CARD

_logger = logging.getLogger(__name__)

LABEL = "card"
"""Label of the generated section."""
_SEPARATOR = "\n\n---\n\n"
"""Rule before each section. MLflow shows a Markdown heading like other text, so titles are bold."""
_TITLE = re.compile(rf"{HEADING}(.+)")
_FIRST_COLUMN = re.compile(r"^\| ([^|]*\w[^|]*) \| ", re.MULTILINE)
_SPACE = "&ensp;"
"""Behind the first column, because MLflow shows the columns without space between them."""
_FILE_URL = "ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files?artifact_file_path={name}"
"""Address of a file of a model, relative to MLflow's pages."""


def write_card(version: Version) -> None:
    """Add the card of its model to the description of a version.

    Nothing is changed if the description has a card. A failure is only a warning, because the
    version is already registered. The models of earlier releases have no card.
    """
    try:
        _write_card(version)
    except Exception as error:  # noqa: BLE001 each artifact store has its own errors
        _logger.warning("The card of %s was not written: %s", version, error)


def _write_card(version: Version) -> None:
    client, number = RegistryClient(), str(version.number)
    description = client.get_model_version(version.name, number).description or ""
    if Description.parse(description, LABEL).generated:
        return
    location = mlflow.get_logged_model(version.model_id).artifact_location
    card = mlflow.artifacts.load_text(f"{location}/{MODEL_CARD}")
    client.update_model_version(version.name, number, add_card(description, card, version))


def add_card(description: str, card: str, version: Version) -> str:
    """Return a description with a card at its end, if there is space for it.

    Args:
        description: Description without a card.
        card: Content of ``MODEL_CARD.md``.
        version: Version with the digest and the signature of the model.
    """
    section = Description(description.strip(), _format_card(card, version), "")
    text: str | None = section.format(LABEL)
    while text is not None and len(text) > MAX_LENGTH:
        text = shorten(text)
    return description if text is None else text


def shorten(description: str) -> str | None:
    """Return a description without the last section of its card.

    None if it has no card, or one without sections.
    """
    parsed = Description.parse(description, LABEL)
    kept, found, _ = parsed.generated.rpartition(_SEPARATOR)
    return Description(parsed.above, kept, parsed.below).format(LABEL) if found else None


def _format_card(card: str, version: Version) -> str:
    """Return the text of a card with what is known only about a registered version."""
    head, _, rest = card.strip().partition(HEADING)
    title, _, summary = head.removeprefix("# ").partition("\n")
    facts = format_table(
        [
            ("digest", None if version.digest is None else format_code(version.digest)),
            ("signature", None if version.signature is None else format_code(version.signature)),
            ("model", format_code(version.model_id)),
        ]
    )
    picture = _FILE_URL.format(model_id=version.model_id, name=LEARNING_CURVE)
    text = (
        f"**Model card**: {title}\n\n{summary.strip()} The whole card is the file `{MODEL_CARD}` "
        f"of the model.\n\n{facts}{HEADING}{rest}"
    )
    text = _TITLE.sub(rf"{_SEPARATOR}**\1**", text).replace(f"]({LEARNING_CURVE})", f"]({picture})")
    text = _FIRST_COLUMN.sub(rf"| \1{_SPACE} | ", text)
    return text.replace(f"models:/{version.model_id}", version.uri)
