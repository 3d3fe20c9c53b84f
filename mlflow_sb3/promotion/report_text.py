"""Describe a promotion in sentences."""

from __future__ import annotations

from mlflow_sb3.promotion.record import (
    GateEvidence,
    MissedReturn,
    PromotionContext,
    PromotionRecord,
)
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports.number_format import format_number

RANDOM_POLICY = "a uniform random policy"


def get_opponent_name(context: PromotionContext) -> str:
    """Return ``name/number`` of the champion, or a description of the random policy."""
    return RANDOM_POLICY if context.champion is None else str(context.champion)


def explain_verdict(record: PromotionRecord, evidence: GateEvidence) -> str:
    """Explain the verdict of a gate.

    Args:
        record: Record of the promotion, still without ``reason``. This function returns that text.
        evidence: Results of the gate.
    """
    context = record.context
    champion_stays = (
        f"there is no {context.alias} yet"
        if context.champion is None
        else f"{context.champion} stays the {context.alias}"
    )
    if record.verdict == "tie":
        return f"{_describe_tie(context, evidence)}, so {champion_stays}."
    means = (
        f"The mean return of {context.challenger} is "
        f"{format_number(evidence.challenger_episodes.mean_return)} and the mean return of "
        f"{get_opponent_name(context)} is {format_number(evidence.champion_episodes.mean_return)}, "
        f"over {len(evidence.episodes.seed)} episodes {_describe_seeds(evidence)}."
    )
    budget = _describe_budget(record)
    if record.verdict == "promote":
        improvement = _describe_improvement(evidence)
        return f"{means} {improvement}, so {_describe_promotion(record)}.{budget}"
    if record.missed_return is not None:
        improvement = _describe_improvement(evidence)
        missed = _describe_missed(record, record.missed_return)
        return f"{means} {improvement}. {missed}, so {champion_stays}.{budget}"
    failure = _describe_failure(record, evidence)
    return f"{means} {failure}, so {champion_stays}.{_describe_power(record, evidence)}{budget}"


def explain_forced_promotion(record: PromotionRecord, why: str) -> str:
    """Explain a promotion without a gate.

    Args:
        record: Record of the promotion, still without ``reason``. This function returns that text.
        why: Reason of the user.
    """
    champion = record.context.champion
    replaced = "" if champion is None else f" in place of {champion}"
    return f"Without a gate, {_describe_promotion(record)}{replaced}. Reason: {why.rstrip('.')}."


def explain_rollback(context: PromotionContext, why: str) -> str:
    """Explain that ``context.challenger``, the earlier champion, has the alias again.

    Args:
        context: Context of the rollback.
        why: Reason of the user; may be empty.
    """
    replaced = "" if context.champion is None else f", in place of {context.champion}"
    reason = f" Reason: {why.rstrip('.')}." if why else ""
    return f"{context.challenger} is the {context.alias} again{replaced}.{reason}"


def _describe_seeds(evidence: GateEvidence) -> str:
    return "on the same seeds" if evidence.is_paired else "each, without common seeds"


def _describe_improvement(evidence: GateEvidence) -> str:
    return (
        f"The mean difference is {format_number(evidence.mean_difference)}, and with "
        f"{format_confidence(evidence)} at least {format_number(evidence.lower_bound)}"
    )


def _describe_failure(record: PromotionRecord, evidence: GateEvidence) -> str:
    """Explain why the gate rejected the challenger or stayed inconclusive."""
    difference = format_number(evidence.mean_difference)
    gate, lower, upper = evidence.gate, evidence.lower_bound, evidence.upper_bound
    minimum = (
        f", and min_improvement is {format_number(gate.min_improvement)}"
        if gate.min_improvement
        else ""
    )
    if lower is not None and lower > gate.min_improvement:
        return _describe_missed_minimum(record.context.challenger, evidence)
    if record.verdict == "reject":
        bound = f"with {format_confidence(evidence)} at most {format_number(upper)}"
        return f"The mean difference is {difference}, and {bound}{minimum}"
    if lower is None or upper is None:
        return (
            f"The mean difference is {difference}, but too few "
            f"{'pairs' if evidence.is_paired else 'returns'} differ to compute its bounds{minimum}"
        )
    bounds = f"{format_number(lower)} and {format_number(upper)}"
    return (
        f"The mean difference is {difference}, and its bounds are {bounds} "
        f"({format_confidence(evidence)} each){minimum}"
    )


def _describe_missed(record: PromotionRecord, missed: MissedReturn) -> str:
    """Explain that an earlier return of the champion prevented the promotion."""
    champion = record.context.champion
    return (
        f"But {champion} had a return of {format_number(missed.max_return)} in its "
        f"{missed.episodes} recorded episodes, and none as high in this gate. Once in "
        f"{missed.episodes} episodes, such a return raises its mean return by "
        f"{format_number(missed.gain)}. Use more episodes to find out"
    )


def _describe_missed_minimum(challenger: Version, evidence: GateEvidence) -> str:
    """Explain that the challenger is better than the champion but misses ``min_return``."""
    bounds = evidence.challenger_return_bounds
    lower = None if bounds is None else bounds.t_lower
    upper = None if bounds is None else bounds.t_upper
    return (
        f"The bounds of the mean return of {challenger} are {format_number(lower)} and "
        f"{format_number(upper)} ({format_confidence(evidence)} each), "
        f"and min_return is {format_number(evidence.gate.min_return)}"
    )


def _describe_power(record: PromotionRecord, evidence: GateEvidence) -> str:
    """Return a sentence with the smallest difference that an inconclusive gate detects."""
    lower, upper = evidence.lower_bound, evidence.upper_bound
    if record.verdict != "inconclusive" or lower is None or upper is None:
        return ""
    if lower > evidence.gate.min_improvement:  # the challenger missed min_return instead
        return ""
    detectable = format_number(evidence.smallest_detectable_difference)
    unit = "pairs" if evidence.is_paired else "episodes"
    return (
        f" With this number of {unit}, the gate detects a difference of {detectable} "
        "with 80 % power."
    )


def _describe_budget(record: PromotionRecord) -> str:
    """Return a sentence about the share of the gate in ``alpha_per_reign``."""
    budget = record.error_budget
    if budget is None:
        return ""
    return (
        f" This is gate {budget.position} since the last promotion, so its alpha is "
        f"{100 * budget.alpha:.2g} % of {100 * budget.alpha_per_reign:g} % for all gates."
    )


def _describe_tie(context: PromotionContext, evidence: GateEvidence) -> str:
    """Explain a tie: equal returns in each pair, or even the same return in all episodes."""
    agents = f"{context.challenger} and {get_opponent_name(context)}"
    mean_return, pairs = evidence.challenger_episodes.mean_return, len(evidence.episodes.seed)
    mean = format_number(mean_return)
    is_return_constant = evidence.all_returns_equal
    if not is_return_constant:
        share = f"{100 * (evidence.largest_share_of_other_pairs or 0.0):.2f} %"
        return (
            f"{agents} have equal returns in all {pairs} pairs of episodes, with a mean of {mean}. "
            f"With {format_confidence(evidence)}, at most {share} of further pairs would differ"
        )
    unit = "pairs of episodes" if evidence.is_paired else "episodes each"
    threshold = evidence.reward_threshold
    reached = (
        f" Both reach the environment's reward threshold of {format_number(threshold)}."
        if threshold is not None and mean_return >= threshold
        else ""
    )
    return (
        f"{agents} both have a return of {mean} in all {pairs} {unit}.{reached} "
        "These episodes cannot show which agent is better"
    )


def _describe_promotion(record: PromotionRecord) -> str:
    version, alias = record.context.challenger, record.context.alias
    if record.is_accepted:
        return f"{version} becomes the {alias}"
    return (
        f"{version} can become the {alias} after approval (set the tag approval=approved on "
        f"version {version.number} and promote it again)"
    )


def format_confidence(evidence: GateEvidence) -> str:
    """Return the confidence of one bound of a gate, such as ``95 % confidence``."""
    return f"{100 * (1 - evidence.gate.alpha):.6g} % confidence"
