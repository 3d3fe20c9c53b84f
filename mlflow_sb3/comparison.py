"""Challenger against champion on the same seeds: who of them is better, and the verdict."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mlflow_sb3 import evaluation
from mlflow_sb3.evaluation import Episodes

SCHEMA = 1
"""Of ``promotion.json``; rises when the meaning of a key changes."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why in one sentence."""

    verdict: Literal["promote", "reject", "tie"]
    reason: str

    @property
    def promoted(self) -> bool:
        """Whether the challenger becomes the champion."""
        return self.verdict == "promote"


def gate_seed(name: str, challenger: str, champion: str | None, episodes: int) -> int:
    """The seed of the stream ``gate``: another for every pair of agents, the same whenever the pair is compared again.

    Args:
        name: Of the registered model.
        challenger: Model id.
        champion: Model id, if there is a champion.
        episodes: That each of them plays.
    """
    text = "\n".join([name, challenger, champion or "", str(episodes)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def decide(challenger: Episodes, champion: Episodes | None) -> Verdict:
    """Compare mean returns; a tie keeps the champion, and without a champion the challenger becomes it.

    Args:
        challenger: Its episodes.
        champion: Its episodes on the same seeds.

    Raises:
        ValueError: The two played different seeds, or a return is not finite.
    """
    played = summarized(challenger)
    if champion is None:
        return Verdict("promote", f"there is no champion yet, and the challenger returns {played:.2f} on average")
    if not np.array_equal(challenger.seeds, champion.seeds):
        raise ValueError("challenger and champion played different seeds; play both on the same.")
    reigning = summarized(champion)
    against = f"{played:.2f} on average, the champion {reigning:.2f}, over the same {len(challenger.seeds)} episodes"
    if played > reigning:
        return Verdict("promote", f"the challenger returns {against}")
    if played < reigning:
        return Verdict("reject", f"the challenger returns only {against}")
    return Verdict("tie", f"the challenger returns {against}; a tie keeps the champion")


def summarized(episodes: Episodes) -> float:
    """Mean return of episodes whose returns are all finite."""
    if not np.isfinite(episodes.returns).all():
        raise ValueError("an episode has a return that is not finite, which cannot be compared; check the environment's rewards.")
    return float(episodes.returns.mean())


def metrics(challenger: Episodes, champion: Episodes | None) -> dict[str, float]:
    """The numbers behind the verdict, under ``promotion/``."""
    numbers = evaluation.summarize(challenger).metrics("promotion/challenger_")
    if champion is None:
        return numbers
    difference = float((challenger.returns - champion.returns).mean())
    return numbers | evaluation.summarize(champion).metrics("promotion/champion_") | {"promotion/mean_difference": difference}


def record(verdict: Verdict, challenger: Episodes, champion: Episodes | None) -> dict[str, Any]:
    """The verdict and its evidence as JSON values."""
    return {
        "schema": SCHEMA,
        **asdict(verdict),
        "challenger": asdict(evaluation.summarize(challenger)),
        "champion": None if champion is None else asdict(evaluation.summarize(champion)),
        "episodes": table(challenger, champion),
    }


def table(challenger: Episodes, champion: Episodes | None) -> dict[str, list[float]]:
    """The episodes side by side as columns."""
    columns: dict[str, list[float]] = {"seed": challenger.seeds.tolist()}
    for name, episodes in (("challenger", challenger), ("champion", champion)):
        if episodes is not None:
            columns |= {f"{name}_return": episodes.returns.tolist(), f"{name}_length": episodes.lengths.tolist()}
    return columns
