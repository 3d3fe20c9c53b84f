"""A promotion's record for people: in sentences, and as the Markdown description of a version. All numbers are the record's."""

from __future__ import annotations

from mlflow_sb3.promotion.record import PromotionRecord

SMALL = 0.1
"""Returns below it are shown with two digits wherever those begin."""
RANDOM = "a uniform random policy"
BEGIN_MARK, END_MARK = "<!-- mlflow-sb3: promotion -->", "<!-- mlflow-sb3: end -->"
"""Stand around what is ours in a description; what people write above and below stays."""


def challenger_name(record: PromotionRecord) -> str:
    """``name/number`` of the challenger."""
    return _name(record["challenger"])


def opponent_name(record: PromotionRecord) -> str:
    """``name/number`` of the champion, or what stands in for one."""
    return RANDOM if record["champion"] is None else _name(record["champion"])


def verdict_reason(record: PromotionRecord) -> str:
    """What the games of a record say, and what follows from it."""
    pairs, alias = len(record["episodes"]["seed"]), record["alias"]
    stays = (
        f"there is no {alias} yet"
        if record["champion"] is None
        else f"{opponent_name(record)} stays the {alias}"
    )
    if record["verdict"] == "tie":
        return f"{_tie(record, pairs)}, so {stays}."
    own, other = (
        record["challenger_episodes"]["mean_return"],
        record["champion_episodes"]["mean_return"],
    )
    played = f"{challenger_name(record)} returned {format_number(own)} on average and {opponent_name(record)} {format_number(other)}, over the same {pairs} episodes."
    if record["verdict"] == "promote":
        return f"{played} {_ahead(record)}, so {_follows(record)}."
    return f"{played} {_behind(record)}, so {stays}."


def forced_reason(record: PromotionRecord, why: str) -> str:
    """What follows from a promotion without games."""
    before = "" if record["champion"] is None else f" in place of {opponent_name(record)}"
    return f"{challenger_name(record)} did not have to play{before}: {why.rstrip('.')}. So {_follows(record)}."


def version_description(record: PromotionRecord, before: str | None, longest: int) -> str:
    """The description of a version: what people wrote, with this promotion between its marks.

    Args:
        record: Of the promotion.
        before: The description so far; what an earlier promotion wrote in it is replaced.
        longest: Characters that it may have; the table is left out, or all of ours, when people's text leaves no room.
    """
    above, _, rest = (before or "").partition(BEGIN_MARK)
    below = rest.partition(END_MARK)[2]
    verdict = f"**{record['verdict']}** ({record['rule']}): {record['reason']}"
    table = "\n".join(_rows(record)) if "episodes" in record else ""
    for ours in (
        [BEGIN_MARK, verdict, table, _source(record), END_MARK],
        [BEGIN_MARK, verdict, _source(record), END_MARK],
    ):
        text = "\n\n".join(part for part in (above.strip(), *ours, below.strip()) if part)
        if len(text) <= longest:
            return text
    return before or ""


def format_number(value: float | None) -> str:
    """Two digits behind the point, or as many as show a small number; what the record does not know is unknown."""
    if value is None:
        return "unknown"
    return f"{value:.2f}" if value == 0 or abs(value) >= SMALL else f"{value:.2g}"


def _rows(record: PromotionRecord) -> list[str]:
    own, other = record["challenger_episodes"], record["champion_episodes"]
    named = {
        "mean return": "mean_return",
        "standard deviation": "std_return",
        "worst 5 % of the returns, mean": "worst_return",
        "mean length, steps": "mean_length",
    }
    sides = [
        f"| {label} | {format_number(own[key])} | {format_number(other[key])} |"
        for label, key in named.items()
    ]
    facts = {
        "difference of the means": format_number(record["mean_difference"]),
        f"its bounds, {_confidence(record)} each": f"{format_number(record['lower_bound'])} to {format_number(record['upper_bound'])}",
        "smallest difference that so many pairs show (power 80 %)": format_number(
            record["smallest_detectable_difference"]
        ),
        "probability of improvement": format_number(record["probability_of_improvement"]),
    }
    pairs = len(record["episodes"]["seed"])
    both = [f"| {label} | {value} | |" for label, value in facts.items()]
    return [
        f"| {pairs} pairs | {challenger_name(record)} | {opponent_name(record)} |",
        "| --- | --- | --- |",
        *sides,
        *both,
    ]


def _source(record: PromotionRecord) -> str:
    commit = f", commit {record['commit']}" if record["commit"] else ""
    return f"Decided by {record['user']} in run {record['run_id']}{commit}."


def _ahead(record: PromotionRecord) -> str:
    difference, lower = (
        format_number(record["mean_difference"]),
        format_number(record["lower_bound"]),
    )
    return (
        f"The difference of {difference} is at least {lower} with {_confidence(record)} confidence"
    )


def _behind(record: PromotionRecord) -> str:
    """Why it is not promoted, although it is no tie."""
    gate, own, difference = (
        record["gate"],
        record["challenger_return_bounds"],
        format_number(record["mean_difference"]),
    )
    asked = (
        f" and {format_number(gate['min_improvement'])} was asked for"
        if gate["min_improvement"]
        else ""
    )
    if (
        own is not None
        and record["lower_bound"] is not None
        and record["lower_bound"] > gate["min_improvement"]
    ):
        return (
            f"Its mean return lies between {format_number(own['t_lower'])} and {format_number(own['t_upper'])} ({_confidence(record)} each), "
            f"and min_return is {format_number(gate['min_return'])}"
        )
    if record["verdict"] == "reject":
        return f"The difference of {difference} is at most {format_number(record['upper_bound'])} with {_confidence(record)} confidence{asked}"
    if record["lower_bound"] is None or record["upper_bound"] is None:
        return (
            f"Too few of the pairs differ to say how sure the difference of {difference} is{asked}"
        )
    return (
        f"The difference of {difference} lies between {format_number(record['lower_bound'])} and {format_number(record['upper_bound'])} "
        f"({_confidence(record)} each){asked}; a difference of {format_number(record['smallest_detectable_difference'])} would have been found"
    )


def _tie(record: PromotionRecord, pairs: int) -> str:
    value = record["challenger_episodes"]["mean_return"]
    mean = format_number(value)
    if not record["all_returns_equal"]:
        share = f"{100 * record['largest_share_of_other_pairs']:.2f} %"
        return (
            f"{challenger_name(record)} and {opponent_name(record)} returned the same in each of {pairs} pairs of episodes, {mean} on average. "
            f"At most {share} of all pairs differ ({_confidence(record)} confidence)"
        )
    threshold = record["reward_threshold"]
    reached = (
        "The environment's ceiling is reached: it"
        if threshold is not None and value >= threshold
        else "The environment"
    )
    return f"{challenger_name(record)} and {opponent_name(record)} returned {mean} in each of {pairs} episodes. {reached} does not tell them apart"


def _follows(record: PromotionRecord) -> str:
    if record["moves"]:
        return f"it becomes the {record['alias']}"
    version = record["challenger"]["number"]
    return f"it may become the {record['alias']}: set the tag approval=approved on version {version} and promote it again"


def _confidence(record: PromotionRecord) -> str:
    return f"{100 * (1 - record['gate']['alpha']):.4g} %"


def _name(version: dict[str, object]) -> str:
    return f"{version['name']}/{version['number']}"
