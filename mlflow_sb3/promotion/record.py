"""Define the contents of ``promotion.json``: the verdict of a promotion and the evidence for it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.registry.model_version import Version

PROMOTION_SCHEMA = 2
"""Version of the file format. It increases if the meaning of a key changes."""

Validated = TypeVar("Validated")
Rule = Literal["test", "force", "rollback"]
RecordedVerdict = Literal["promote", "reject", "tie", "inconclusive", "error", "rollback"]


@dataclass(frozen=True)
class PromotionContext:
    """Everything that is known before a promotion or rollback is decided.

    Attributes:
        rule: ``test`` for a gate, ``force`` for a promotion without one, or ``rollback``.
        alias: Alias that the winner gets.
        challenger: Version to promote, or the version that a rollback restores.
        champion: Version that has the alias; None if no version has it.
        run_id: Run of the promotion.
        user: User who started the run.
        commit: Git commit of the project.
        time: Start of the run in milliseconds since 1970.
        versions: Installed versions of the packages that affect the result.
    """

    rule: Rule
    alias: str
    challenger: Version
    champion: Version | None
    run_id: str
    user: str | None
    commit: str | None
    time: int
    versions: dict[str, str]


@dataclass(frozen=True)
class RecordedBounds:
    """The bounds of ``ConfidenceBounds``; None stands for an infinite bound, which JSON lacks."""

    t_lower: float | None
    t_upper: float | None
    bootstrap_lower: float | None
    bootstrap_upper: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class RecordedLook(RecordedBounds):
    """Mean difference of the first pairs, challenger minus champion, with its bounds."""

    pairs: int
    mean_difference: float


@dataclass(frozen=True)
class EpisodeSummary:
    """Summary of one agent's episodes; see ``ReturnSummary`` and ``compute_worst_returns_mean``.

    ``success_rate`` is None if the environment reports no success, and in records of earlier
    versions.
    """

    episodes: int
    mean_return: float
    std_return: float
    min_return: float
    max_return: float
    mean_length: float
    worst_return: float
    success_rate: float | None = None


@dataclass(frozen=True)
class EpisodePairs:
    """Table of the pairs: each column has one value per pair; lengths count steps.

    ``seed`` is that of the challenger. Without pairs, it is the seed of the simulator.
    """

    seed: list[int]
    challenger_return: list[float]
    challenger_length: list[int]
    champion_return: list[float]
    champion_length: list[int]

    @classmethod
    def from_episodes(cls, challenger: Episodes, champion: Episodes) -> EpisodePairs:
        """Build the table from the episodes of both agents."""
        return cls(
            seed=challenger.seeds.tolist(),
            challenger_return=challenger.returns.tolist(),
            challenger_length=challenger.lengths.tolist(),
            champion_return=champion.returns.tolist(),
            champion_length=champion.lengths.tolist(),
        )


@dataclass(frozen=True)
class GateEvidence:
    """Results of a gate; the names of the attributes are keys of ``promotion.json``.

    Attributes:
        gate: Settings of the test.
        environment: ``EnvSpec`` JSON of the environment that both agents played in.
        seeds: SHA-256 of the seeds; see ``hash_seeds``.
        looks: Mean difference and bounds after each number of pairs that the gate tested.
        mean_difference: Mean return of the challenger minus mean return of the champion.
        lower_bound: Lower bound of the mean difference.
        upper_bound: Upper bound of the mean difference.
        probability_of_improvement: Fraction of pairs won by the challenger; a tie counts one half.
        smallest_detectable_difference: Mean difference that the gate detects with 80 % power.
        largest_share_of_other_pairs: After a tie, upper bound for the share of further pairs whose
            two returns would differ. None after other verdicts.
        all_returns_equal: Whether all episodes of both agents have the same return.
        reward_threshold: Reward threshold of the environment.
        challenger_episodes: Summary of the challenger's episodes.
        champion_episodes: Summary of the champion's episodes.
        challenger_return_bounds: Bounds of the challenger's mean return, to compare them with
            ``min_return``; None as in ``Comparison.challenger_bounds``.
        episodes: Returns and lengths of all pairs.
        is_paired: Whether both agents played the same seeds; see ``Comparison``.
    """

    gate: Gate
    environment: str
    seeds: str
    looks: list[RecordedLook]
    mean_difference: float
    lower_bound: float | None
    upper_bound: float | None
    probability_of_improvement: float
    smallest_detectable_difference: float | None
    largest_share_of_other_pairs: float | None
    all_returns_equal: bool
    reward_threshold: float | None
    challenger_episodes: EpisodeSummary
    champion_episodes: EpisodeSummary
    challenger_return_bounds: RecordedBounds | None
    episodes: EpisodePairs
    is_paired: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without success rates that are None, and without true ``is_paired``.

        Earlier versions wrote neither.
        """
        values = asdict(self)
        if self.is_paired:
            del values["is_paired"]
        for name in ("challenger_episodes", "champion_episodes"):
            if values[name]["success_rate"] is None:
                del values[name]["success_rate"]
        return values


@dataclass(frozen=True)
class ErrorBudget:
    """Share of a gate in the error probability of a reign; see ``error_budget``.

    Attributes:
        alpha_per_reign: Error probability of the reign.
        position: Position of the gate in the reign, from 1.
        alpha: The share of the gate.
    """

    alpha_per_reign: float
    position: int
    alpha: float


@dataclass(frozen=True)
class MissedReturn:
    """Return of the champion that earlier episodes had, but not the gate; see ``recorded_returns``.

    Attributes:
        max_return: The largest recorded return.
        episodes: Number of recorded episodes.
        gain: Amount by which one such return in ``episodes`` raises the champion's mean return.
    """

    max_return: float
    episodes: int
    gain: float


@dataclass(frozen=True)
class PromotionRecord:
    """Verdict of a promotion or rollback, with its context and evidence.

    Attributes:
        context: Versions, run and rule of the promotion.
        verdict: Verdict of the gate; ``promote`` for a forced promotion; ``tie`` if the challenger
            is already the champion; ``rollback`` for a rollback; ``error`` after a failure.
        is_accepted: Whether the decision is to give the challenger the alias. Stored as ``moves``.
        reason: The verdict in sentences.
        approval: Value of the tag ``approval``; None without the tag, or if no approval is
            required.
        judging_environment: Option ``environment`` of the promotion. Stored as ``judge``.
        evidence: Results of the gate; None if there was no gate or the gate failed.
        error_budget: Share of the gate in ``alpha_per_reign``; None without that option.
        missed_return: Earlier return of the champion that prevented the promotion.
        earlier: Records of earlier gates of the same call, if the champion changed meanwhile.
    """

    context: PromotionContext
    verdict: RecordedVerdict
    is_accepted: bool
    reason: str = ""
    approval: str | None = None
    judging_environment: str | None = None
    evidence: GateEvidence | None = None
    error_budget: ErrorBudget | None = None
    missed_return: MissedReturn | None = None
    earlier: tuple[PromotionRecord, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the contents of ``promotion.json``.

        If ``evidence`` is None, the keys of ``GateEvidence`` are missing. The keys
        ``error_budget``, ``missed_return`` and ``success_rate`` are missing if they are None.
        """
        optional = {"error_budget": self.error_budget, "missed_return": self.missed_return}
        return {
            "schema": PROMOTION_SCHEMA,
            **asdict(self.context),
            "verdict": self.verdict,
            "moves": self.is_accepted,
            "reason": self.reason,
            "approval": self.approval,
            "judge": self.judging_environment,
            **{key: asdict(value) for key, value in optional.items() if value is not None},
            **({} if self.evidence is None else self.evidence.to_json()),
            "earlier": [record.to_json() for record in self.earlier],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PromotionRecord:
        """Build a record from the contents of ``promotion.json``.

        Raises:
            ValueError: A key is missing, or a value has the wrong type.
        """
        missing = [key for key in ("verdict", "moves", "reason") if key not in content]
        if missing:
            raise ValueError(f"keys {missing} are missing")
        return cls(
            context=_validate(_CONTEXT_ADAPTER, content),
            verdict=content["verdict"],
            is_accepted=content["moves"],
            reason=content["reason"],
            approval=content.get("approval"),
            judging_environment=content.get("judge"),
            evidence=_validate(_EVIDENCE_ADAPTER, content) if "episodes" in content else None,
            error_budget=_validate(_BUDGET_ADAPTER, content.get("error_budget")),
            missed_return=_validate(_MISSED_ADAPTER, content.get("missed_return")),
            earlier=tuple(cls.from_json(earlier) for earlier in content.get("earlier", ())),
        )


def hash_seeds(seeds: list[int]) -> str:
    """Return the SHA-256 of the seeds, written one per line."""
    return hashlib.sha256("".join(f"{seed}\n" for seed in seeds).encode()).hexdigest()


def _validate(adapter: TypeAdapter[Validated], content: Any) -> Validated:
    """Build a dataclass from its keys in ``content``; an error names the keys in one line."""
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ValueError("; ".join(problems)) from error


_CONTEXT_ADAPTER = TypeAdapter(PromotionContext)
_EVIDENCE_ADAPTER = TypeAdapter(GateEvidence)
_BUDGET_ADAPTER: TypeAdapter[ErrorBudget | None] = TypeAdapter(ErrorBudget | None)
_MISSED_ADAPTER: TypeAdapter[MissedReturn | None] = TypeAdapter(MissedReturn | None)
