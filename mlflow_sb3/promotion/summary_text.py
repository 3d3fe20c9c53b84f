"""Describe a decision in one line: for the description of a version, and for run names."""

from __future__ import annotations

from mlflow_sb3.promotion.record import GateEvidence, PromotionRecord
from mlflow_sb3.reports.number_format import format_number

WORDS = {"promote": "promoted", "reject": "rejected", "tie": "rejected after a tie"}
"""Words for verdicts. The other verdicts stand for themselves."""
AWAITS_APPROVAL = "awaits approval"
MAX_LENGTH = 300
"""Largest number of characters of a line. The run has the whole reason or error message."""


def summarize(record: PromotionRecord) -> str:
    """Return what was decided about ``record.context.challenger``, in one line."""
    if record.verdict == "error":
        return _to_line(f"error: {record.reason}")
    if record.verdict == "rollback":
        return _to_line(_summarize_rollback(record))
    if record.evidence is None:
        return _to_line(_summarize_without_gate(record))
    champion = record.context.champion
    opponent = "random policy" if champion is None else f"version {champion.number}"
    means = (
        f"{format_number(record.evidence.challenger_episodes.mean_return)} vs "
        f"{format_number(record.evidence.champion_episodes.mean_return)} ({opponent})"
    )
    bounds = _format_bounds(record.verdict, record.evidence)
    return f"{name_verdict(record)}: {means}{bounds}{_format_condition(record, record.evidence)}"


def summarize_loss(record: PromotionRecord) -> str:
    """Return in one line why ``record.context.champion`` lost the alias."""
    winner = f"version {record.context.challenger.number}"
    if record.verdict != "rollback":
        return f"replaced by {winner}"
    return _to_line(f"rolled back to {winner}{_format_user_reason(record)}")


def name_verdict(record: PromotionRecord) -> str:
    """Return a word or two for the verdict, such as ``rejected``."""
    if record.verdict == "promote":
        return WORDS["promote"] if record.is_accepted else AWAITS_APPROVAL
    if record.verdict == "tie" and record.evidence is None:
        return f"already the {record.context.alias}"
    return WORDS.get(record.verdict, record.verdict)


def _to_line(text: str) -> str:
    """Shorten a text with words of a user to a line, and escape HTML."""
    line = " ".join(text.replace("<", "&lt;").split())
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 3]}..."


def _summarize_rollback(record: PromotionRecord) -> str:
    champion = record.context.champion
    loser = "" if champion is None else f", because version {champion.number} was rolled back"
    return f"{record.context.alias} again{loser}{_format_user_reason(record)}"


def _summarize_without_gate(record: PromotionRecord) -> str:
    if record.context.rule == "force":
        return f"{name_verdict(record)} without a gate{_format_user_reason(record)}"
    return f"{record.verdict}: {record.reason}"


def _format_bounds(verdict: str, evidence: GateEvidence) -> str:
    """Return the bound or bounds of the mean difference that decided; empty after a tie."""
    confidence = f"({100 * (1 - evidence.gate.alpha):.6g} %)"
    lower, upper = evidence.lower_bound, evidence.upper_bound
    if verdict == "promote" and lower is not None:
        return f", difference at least {_format_signed(lower)} {confidence}"
    if verdict == "reject" and upper is not None:
        return f", difference at most {_format_signed(upper)} {confidence}"
    if verdict == "inconclusive" and lower is not None and upper is not None:
        bounds = f"{_format_signed(lower)} and {_format_signed(upper)}"
        return f", difference between {bounds} {confidence}"
    return ""


def _format_condition(record: PromotionRecord, evidence: GateEvidence) -> str:
    """Return the condition that a challenger with a high enough difference missed."""
    gate, lower = evidence.gate, evidence.lower_bound
    if record.verdict == "promote":
        return ""
    if record.missed_return is not None:
        return ", but the champion once had a higher return"
    if lower is not None and lower > gate.min_improvement:
        return f", but min_return is {format_number(gate.min_return)}"
    minimum = format_number(gate.min_improvement)
    return f", min_improvement is {minimum}" if gate.min_improvement else ""


def _format_signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{format_number(value)}"


def _format_user_reason(record: PromotionRecord) -> str:
    """Return the reason of the user, which the record has only as the end of its own reason."""
    reason = record.reason.partition(" Reason: ")[2].rstrip(".")
    return f": {reason}" if reason else ""
