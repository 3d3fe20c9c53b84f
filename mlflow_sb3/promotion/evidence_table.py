"""Format the evidence of a decision as Markdown, for the description of a model version."""

from __future__ import annotations

from mlflow_sb3.client.timestamps import format_time
from mlflow_sb3.promotion.record import GateEvidence, PromotionContext, PromotionRecord
from mlflow_sb3.promotion.report_text import format_confidence, get_opponent_name
from mlflow_sb3.reports.number_format import format_number


def format_evidence(record: PromotionRecord) -> str:
    """Return the reason of a decision, the table of its gate, and its source.

    Empty if no gate was played: then the one line about the decision says everything.
    """
    if record.evidence is None:
        return ""
    date = format_time(record.context.time)
    reason = f"**{record.verdict}** on {date} UTC: {record.reason}"
    table = "\n".join(_format_table(record, record.evidence))
    return "\n\n".join([reason, table, _describe_source(record.context)])


def list_agent_rows(evidence: GateEvidence) -> list[tuple[str, str, str]]:
    """Return label, value of the challenger, and value of the champion, as texts."""
    challenger, champion = evidence.challenger_episodes, evidence.champion_episodes
    rows = (
        ("mean return", challenger.mean_return, champion.mean_return),
        ("standard deviation", challenger.std_return, champion.std_return),
        ("mean of the worst 5 % of returns", challenger.worst_return, champion.worst_return),
        ("mean episode length in steps", challenger.mean_length, champion.mean_length),
        ("success rate", challenger.success_rate, champion.success_rate),
    )
    return [
        (label, format_number(left), format_number(right))
        for label, left, right in rows
        if left is not None and right is not None
    ]


def list_comparison_rows(evidence: GateEvidence) -> list[tuple[str, str]]:
    """Return label and value of what compares the two agents, as texts."""
    lower, upper = format_number(evidence.lower_bound), format_number(evidence.upper_bound)
    detectable = format_number(evidence.smallest_detectable_difference)
    return [
        ("mean difference", format_number(evidence.mean_difference)),
        (f"its bounds ({format_confidence(evidence)} each)", f"{lower} to {upper}"),
        ("smallest detectable difference (80 % power)", detectable),
        ("probability of improvement", format_number(evidence.probability_of_improvement)),
    ]


def describe_number(evidence: GateEvidence) -> str:
    """Return the number of episodes, such as ``400 pairs``."""
    unit = "pairs" if evidence.is_paired else "episodes each"
    return f"{len(evidence.episodes.seed)} {unit}"


def _format_table(record: PromotionRecord, evidence: GateEvidence) -> list[str]:
    names = f"{record.context.challenger} | {get_opponent_name(record.context)}"
    return [
        f"| {describe_number(evidence)} | {names} |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in list_agent_rows(evidence)),
        *(f"| {' | '.join(row)} | |" for row in list_comparison_rows(evidence)),
    ]


def _describe_source(context: PromotionContext) -> str:
    commit = f", commit {context.commit}" if context.commit else ""
    return f"Decided by {context.user} in run {context.run_id}{commit}."
