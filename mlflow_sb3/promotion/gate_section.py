"""Describe a gate in a section of a report."""

from __future__ import annotations

import numpy as np

from mlflow_sb3.promotion import evidence_table, promotion_run
from mlflow_sb3.promotion.record import GateEvidence, PromotionContext, PromotionRecord
from mlflow_sb3.promotion.report_text import format_confidence, get_opponent_name
from mlflow_sb3.reports.differences_plot import compute_differences, plot_differences
from mlflow_sb3.reports.gate_plot import PairedReturns, plot_looks, plot_pairs
from mlflow_sb3.reports.html_report import KeyFigure, Picture, Section, Table
from mlflow_sb3.reports.number_format import format_number


def build_gate_section(record: PromotionRecord) -> Section | None:
    """Return the plots and the tables of a gate. None if no gate was played."""
    results = record.evidence
    if results is None:
        return None
    context = record.context
    opponent = get_opponent_name(context)
    paired = promotion_run.collect_returns(context, results)
    pictures = _draw_pairs(paired) if results.is_paired else [_draw_samples(paired)]
    return Section(
        f"{context.challenger} against {opponent}",
        pictures=pictures,
        tables=[
            Table(
                evidence_table.describe_number(results),
                ("", str(context.challenger), opponent),
                evidence_table.list_agent_rows(results),
            ),
            Table(
                "Challenger minus champion",
                ("", "value"),
                evidence_table.list_comparison_rows(results),
            ),
        ],
    )


def list_key_figures(context: PromotionContext, results: GateEvidence) -> list[KeyFigure]:
    """Return the mean returns of both agents and their difference."""
    lower, upper = format_number(results.lower_bound), format_number(results.upper_bound)
    agents = (
        (str(context.challenger), results.challenger_episodes),
        (get_opponent_name(context), results.champion_episodes),
    )
    return [
        *(
            KeyFigure(
                name,
                format_number(summary.mean_return),
                f"mean return, standard deviation {format_number(summary.std_return)}",
            )
            for name, summary in agents
        ),
        KeyFigure(
            "mean difference",
            format_number(results.mean_difference),
            f"{lower} to {upper} ({format_confidence(results)} each)",
        ),
    ]


def _draw_pairs(paired: PairedReturns) -> list[Picture]:
    """Draw the differences of the pairs, unless all are zero, and the bounds after each look."""
    differences = compute_differences(paired)
    better, worse = np.count_nonzero(differences > 0), np.count_nonzero(differences < 0)
    looks = Picture(
        plot_looks(paired),
        alt=f"Mean difference and its bounds after {_list_looks(paired)} pairs. "
        f"{_describe_mean(paired)}",
        caption="The mean difference and its bounds after each look of the gate.",
    )
    if not better + worse:
        return [looks]
    bars = Picture(
        plot_differences(paired),
        alt=f"Differences of {len(differences)} pairs of episodes. The challenger is better in "
        f"{better} of them and the champion in {worse}. {_describe_mean(paired)}",
        caption="One bar for each pair of episodes on the same seed.",
    )
    return [bars, looks]


def _draw_samples(paired: PairedReturns) -> Picture:
    return Picture(
        plot_pairs(paired),
        alt=f"Quantiles of the returns of {paired.challenger} and {paired.champion}, and the mean "
        f"difference after {_list_looks(paired)} episodes each. {_describe_mean(paired)}",
        is_wide=True,
    )


def _list_looks(paired: PairedReturns) -> str:
    return ", ".join(str(look.pairs) for look in paired.differences)


def _describe_mean(paired: PairedReturns) -> str:
    last = paired.differences[-1]
    mean, lower, upper = map(format_number, (last.mean, last.lower, last.upper))
    return f"The mean difference is {mean}, and its bounds are {lower} and {upper}."
