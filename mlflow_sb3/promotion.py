"""The gate: challenger and champion play now, on the same seeds, and the better one bears the alias."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from mlflow_sb3 import comparison, contender, environment, registry
from mlflow_sb3.comparison import Verdict
from mlflow_sb3.contender import Contender
from mlflow_sb3.registry import Version

PREVIOUS = "previous-{alias}"


@dataclass(frozen=True)
class Promotion:
    """What the gate found; nothing has changed in the registry yet."""

    challenger: Version
    champion: Version | None
    verdict: Verdict
    metrics: dict[str, float]
    record: dict[str, Any]

    def apply(self, alias: str) -> None:
        """Move the alias if the challenger won, and write the verdict on the challenger's version.

        Raises:
            MlflowException: The alias has moved since the games began.
        """
        name = self.challenger.name
        if (now := registry.champion(name, alias)) != self.champion:
            raise MlflowException.invalid_parameter_value(
                f"{alias} of {name} is {now} now, and was {self.champion} when the games began; promote again."
            )
        if self.verdict.promoted:
            registry.set_alias(name, alias, self.challenger.number)
            if self.champion is not None:
                registry.set_alias(name, PREVIOUS.format(alias=alias), self.champion.number)
        for key, value in {"verdict": self.verdict.verdict, "reason": self.verdict.reason}.items():
            MlflowClient().set_model_version_tag(name, str(self.challenger.number), f"mlflow_sb3.{key}", value)


def hold(challenger: Version, champion: Version | None, *, episodes: int = 100, progress: bool = False) -> Promotion:
    """Let a challenger play against the champion.

    Args:
        challenger: Version that may become the champion.
        champion: The version that is, if there is one.
        episodes: For each of them, on seeds that are used for this pair alone.
        progress: Show a progress bar on standard error.

    Raises:
        MlflowException: A version's files have changed, the two were trained in different environments, or the
            challenger is the champion.
    """
    if champion is not None and champion.number == challenger.number:
        raise MlflowException.invalid_parameter_value(f"{challenger} is the champion already; name another version to promote.")
    contenders = [contender.load(version) for version in (challenger, champion) if version is not None]
    _check_environments(contenders)
    seed = comparison.gate_seed(challenger.name, *_model_ids(challenger, champion), episodes)
    seeds = environment.seeds(seed, "gate", episodes)
    with tqdm(total=episodes * len(contenders), desc="gate", unit="episode", disable=not progress, mininterval=1) as bar:
        played = [one.play(seeds, on_episode=bar.update) for one in contenders]
    sides = (played[0], played[1] if champion is not None else None)
    verdict = comparison.decide(*sides)
    versions = {"challenger_version": asdict(challenger), "champion_version": None if champion is None else asdict(champion)}
    return Promotion(challenger, champion, verdict, comparison.metrics(*sides), comparison.record(verdict, *sides) | versions)


def _check_environments(contenders: list[Contender]) -> None:
    first, *others = contenders
    for other in others:
        if other.environment != first.environment:
            raise MlflowException.invalid_parameter_value(
                f"{first.version} and {other.version} were trained in different environments, so their returns cannot be compared; "
                "register them under different names."
            )


def _model_ids(challenger: Version, champion: Version | None) -> tuple[str, str | None]:
    return challenger.model_id, None if champion is None else champion.model_id
