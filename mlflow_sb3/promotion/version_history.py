"""Write decisions on the versions that they concern: the state as a tag, and a dated history.

The history is the generated section of the description. It has one line per decision, newest first,
and below them the evidence of each gate. A line is never replaced, so a repeated call changes
nothing. The model card follows. If the text becomes too long, the last sections of the card are
left out, then the evidence of the oldest gates, and then the oldest lines. The files of the model
and the runs still have them.
"""

from __future__ import annotations

import re
from dataclasses import replace

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.client.timestamps import format_time
from mlflow_sb3.promotion import evidence_table, promotion_run, summary_text
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.alias_history import AliasHistory
from mlflow_sb3.registry.generated_text import MAX_LENGTH, Description
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.registry.versions import STATE_TAG
from mlflow_sb3.reports import version_card

APPROVAL_TAG = "approval"
"""Tag of a model version. The value ``approved`` allows a promotion that requires approval."""

_CHAMPION = "champion"
_LABEL = "promotion"
_LINE = re.compile(r"\d{4}-\d\d-\d\d ")
_SEPARATOR = "\n\n---\n\n"
_TAGS_OF_EARLIER_RELEASES = (
    "mlflow_sb3.verdict",
    "mlflow_sb3.reason",
    "mlflow_sb3.promotion_run",
    versions.ROLLED_BACK_TAG,
)


def write_decision(record: PromotionRecord) -> None:
    """Write a decision on the challenger and, if the alias moved, on the former champion.

    Call this after the alias has moved.
    """
    if record.is_accepted and record.context.champion is not None:
        _write_loss(record, record.context.champion)
    challenger = record.context.challenger
    entity = _get_entity(challenger.name, challenger.number)
    line = _format_line(record, summary_text.summarize(record))
    _add_line(entity, line, evidence_table.format_evidence(record))
    # The state of the challenger comes last. It shows ``complete_last_decision`` that all is done.
    if record.is_accepted:
        alias = record.context.alias  # another promotion may have moved it again
        _set_state(entity, alias if alias in entity.aliases else f"former {alias}")
    elif record.verdict in ("reject", "tie") and not _keeps_state(entity):
        _set_state(entity, versions.REJECTED)


def write_error(record: PromotionRecord, error: Exception) -> None:
    """Log a record with the verdict ``error`` and the message of the error, and write it."""
    reason = " ".join(str(error).split()) or type(error).__name__
    failed = replace(record, verdict="error", is_accepted=False, reason=reason)
    promotion_run.log_record(failed)
    write_decision(failed)


def complete_last_decision(history: AliasHistory) -> None:
    """Write the last move of an alias on its versions, if that has not been done.

    The process that moved the alias may have been killed, or a user moved the alias by hand.
    """
    if history.champion is None:
        _correct_former_champion(history)
        return
    entity = _get_entity(history.name, history.champion)
    if entity.tags.get(STATE_TAG) == history.alias:
        return
    record = _load_record_of_move(history)
    if record is not None:
        write_decision(record)
        return
    _set_state(entity, history.alias)
    _correct_former_champion(history)


def _correct_former_champion(history: AliasHistory) -> None:
    """If the champion before a move by hand still has the state of a champion, correct that."""
    numbers = history.former_numbers
    if not numbers or not versions.has_version(history.name, numbers[-1]):
        return
    former = _get_entity(history.name, numbers[-1])
    if former.tags.get(STATE_TAG) == history.alias:
        _set_state(former, f"former {history.alias}")


def _load_record_of_move(history: AliasHistory) -> PromotionRecord | None:
    """Return the record of the last move, or None if a user moved the alias or deleted the run."""
    if history.last_move is None:
        return None
    try:
        record = promotion_run.load_record(history.last_move.run_id)
    except MlflowException:
        return None
    # A run may have several promotions, and has the record of the last one.
    found = (record.context.alias, record.context.challenger.number)
    return record if record.is_accepted and found == (history.alias, history.champion) else None


def _write_loss(record: PromotionRecord, loser: Version) -> None:
    """Write the decision on the former champion, unless that has been done.

    The line comes last. It shows that all is done, and later decisions may have changed the state.
    """
    entity = _get_entity(loser.name, loser.number)
    line = _format_line(record, summary_text.summarize_loss(record))
    if line in (entity.description or ""):
        return
    if record.verdict == "rollback":
        _set_state(entity, versions.ROLLED_BACK)
        versions.remove_tag(loser, APPROVAL_TAG)
    else:
        _set_state(entity, f"former {record.context.alias}")
    _add_line(entity, line, "")


def _format_line(record: PromotionRecord, text: str) -> str:
    date = format_time(record.context.time)[:10]
    return f"{date} {text} ([run](#/runs/{record.context.run_id}))"


def _add_line(entity: ModelVersion, line: str, details: str) -> None:
    """Add a line and the evidence to the description of a version."""
    description = add_decision(entity.description or "", line, details)
    if description != entity.description:
        RegistryClient().update_model_version(entity.name, str(entity.version), description)


def add_decision(description: str, line: str, details: str) -> str:
    """Return a description with one more decision.

    Args:
        description: Description so far. Text outside of the generated section is kept.
        line: The decision in one line that begins with its date. If the description has this line,
            it is returned as it is.
        details: Markdown text with the evidence; may be empty.
    """
    parsed = Description.parse(description, _LABEL, before=version_card.LABEL)
    paragraphs, _, evidence = parsed.generated.partition(_SEPARATOR)
    if parsed.generated and not _LINE.match(parsed.generated):  # written by an earlier release
        paragraphs, evidence = "", parsed.generated
    lines = [paragraph for paragraph in paragraphs.split("\n\n") if paragraph]
    if line in lines:
        return description
    lines.insert(0, line)
    blocks = [block for block in (details, *evidence.split(_SEPARATOR)) if block]
    while True:
        generated = _SEPARATOR.join(["\n\n".join(lines), *blocks])
        text = Description(parsed.above, generated, parsed.below).format(_LABEL)
        while len(text) > MAX_LENGTH and (shorter := version_card.shorten(text)) is not None:
            text = shorter
        if len(text) <= MAX_LENGTH:
            return text
        if not blocks and len(lines) == 1:
            return description
        (blocks or lines).pop()


def _set_state(entity: ModelVersion, state: str) -> None:
    """Set the tag with the state, and delete the tags that earlier releases wrote instead of it.

    If the version has the alias ``champion``, that is its state, whatever other aliases it has.
    """
    if _CHAMPION in entity.aliases:
        state = _CHAMPION
    client, number = RegistryClient(), str(entity.version)
    client.set_model_version_tag(entity.name, number, STATE_TAG, state)
    for key in _TAGS_OF_EARLIER_RELEASES:
        if key in entity.tags:
            client.delete_model_version_tag(entity.name, number, key)


def _keeps_state(entity: ModelVersion) -> bool:
    """Return whether a rejection does not change the state.

    A version may be rejected for one alias and have another one. A version that was rolled back
    stays so until it is promoted again.
    """
    state = entity.tags.get(STATE_TAG)
    is_alias = state != versions.CHALLENGER and state in entity.aliases
    return is_alias or versions.is_rolled_back(entity)


def _get_entity(name: str, number: int) -> ModelVersion:
    return RegistryClient().get_model_version(name, str(number))
