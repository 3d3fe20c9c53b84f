from __future__ import annotations

from dataclasses import replace

from mlflow_sb3.reports.differences_plot import compute_differences, plot_differences
from mlflow_sb3.reports.gate_plot import MeanDifference, PairedReturns

PAIRED = PairedReturns(
    title="",
    challenger="agent/2",
    champion="agent/1",
    challenger_returns=[3.0, 4.0, 1.0, 2.0],
    champion_returns=[1.0, 1.0, 2.0, 2.0],
    challenger_mean=2.5,
    champion_mean=1.5,
    differences=[MeanDifference(2, 2.5, None, None), MeanDifference(4, 1.0, -1.5, 3.5)],
    min_improvement=0.0,
)


def get_labels(paired: PairedReturns) -> list[str]:
    legend = plot_differences(paired).axes[0].get_legend()
    assert legend is not None
    return sorted(text.get_text() for text in legend.get_texts())


def test_the_differences_of_the_pairs_are_sorted() -> None:
    assert compute_differences(PAIRED).tolist() == [-1.0, 0.0, 2.0, 3.0]


def test_the_legend_counts_the_pairs_and_has_the_mean_with_its_last_bounds() -> None:
    assert get_labels(PAIRED) == [
        "challenger better: 2",
        "champion better: 1",
        "its bounds: -1.50 to 3.50",
        "mean difference 1.00",
    ]


def test_missing_bounds_are_left_out_and_a_minimum_is_shown() -> None:
    paired = replace(PAIRED, differences=PAIRED.differences[:1], min_improvement=0.5)

    assert get_labels(paired) == [
        "challenger better: 2",
        "champion better: 1",
        "mean difference 2.50",
        "min_improvement: 0.50",
    ]
