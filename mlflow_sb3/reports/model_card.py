"""Define ``ModelCard``: the facts about a model, and ``MODEL_CARD.md`` made from them.

A fact that is not known is None, and the card then has no row for it. The sections stand in the
order of their importance, because a description of a version keeps only the first ones if it
becomes too long; see ``version_card``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_sb3.inference.agent_files import AgentInfo
from mlflow_sb3.inference.policy_inputs import PolicyInputs, SpaceInfo
from mlflow_sb3.reports import card_limits
from mlflow_sb3.reports.card_facts import CardFacts, CardTraining
from mlflow_sb3.reports.card_usage import CardUsage
from mlflow_sb3.reports.markdown import format_code, format_duration, format_table, format_text
from mlflow_sb3.reports.number_format import format_number

MODEL_CARD = "MODEL_CARD.md"
"""File of a model with its card."""
LEARNING_CURVE = "learning_curve.png"
"""File of a training run, and of a model, with the plot of the learning curve."""
HEADING = "\n\n## "
"""Text before the title of a section."""
_MAX_SPACE_LENGTH = 160
"""Largest number of characters of a space that is shown with its bounds."""
_PACKAGE_NAMES = {"stable_baselines3": "Stable-Baselines3", "sb3_contrib": "sb3-contrib"}


@dataclass(frozen=True)
class ModelCard:
    """Everything that is known about a model when it is logged."""

    agent: AgentInfo
    inputs: PolicyInputs
    facts: CardFacts = field(default_factory=CardFacts)
    usage: CardUsage | None = None

    @property
    def title(self) -> str:
        """Algorithm and environment, such as ``"PPO agent for CartPole-v1"``."""
        environment = self.agent.environment
        agent = f"{self._algorithm} agent"
        return agent if environment is None else f"{agent} for {format_text(environment['id'])}"

    @property
    def _algorithm(self) -> str:
        return self.agent.algorithm.rpartition(".")[2]

    def to_markdown(self) -> str:
        """Return the text of ``MODEL_CARD.md``."""
        sections = {
            "Returns": self._format_returns(),
            "Use": "" if self.usage is None else self.usage.to_markdown(),
            "Environment": self._format_environment(),
            "Training": self._format_training(),
            "Known limits": "\n".join(
                f"- {limit}"
                for limit in card_limits.list_limits(self.agent, self.inputs, self.facts)
            ),
            "Packages": self._format_packages(),
            "Hyperparameters": format_table(
                (
                    (format_code(key), format_code(value))
                    for key, value in self.facts.hyperparams.items()
                ),
                header=("hyperparameter", "value"),
            ),
        }
        text = "".join(f"{HEADING}{title}\n\n{body}" for title, body in sections.items() if body)
        return f"# {self.title}\n\n{self._describe()}{text}\n"

    def _describe(self) -> str:
        backend = "onnxruntime" if self.agent.inference == "onnx" else "Stable-Baselines3"
        steps = self.facts.training.timesteps
        trained = "" if steps is None else f" in {steps:,} environment steps"
        return (
            f"A policy that {self._algorithm} trained{trained}. It chooses an action for each "
            f"observation. {backend} runs it."
        )

    def _format_returns(self) -> str:
        returns = self.facts.returns
        if returns is None:
            return ""
        interval = None
        if returns.interval is not None:
            interval = " to ".join(format_number(bound) for bound in returns.interval)
        table = format_table(
            [
                ("mean return", format_number(returns.mean)),
                ("95 % interval of the mean, by Student's t", interval),
                ("standard deviation", format_number(returns.std)),
                ("mean of the worst 5 % of returns", format_number(returns.worst)),
                ("episodes", str(returns.episodes)),
                ("seeds", None if returns.seeds is None else format_code(returns.seeds)),
            ],
            header=("figure", "value"),
        )
        return f"{table}\n\n{_describe_selection(returns.competitors)}"

    def _format_environment(self) -> str:
        return format_table(
            [
                *_list_environment(self.agent.environment),
                ("observation space", _format_space(self.agent.observation_space)),
                ("action space", _format_space(self.agent.action_space)),
            ]
        )

    def _format_training(self) -> str:
        training = self.facts.training
        table = format_table(
            [
                ("algorithm", format_code(self.agent.algorithm)),
                ("environment steps", _format_count(training.timesteps)),
                ("kept checkpoint", _prefix("step ", _format_count(training.kept_step))),
                ("seed", _to_text(training.seed)),
                ("source of the hyperparameters", _to_text(training.preset)),
                ("time", _describe_time(training)),
                ("hardware", _describe_hardware(training)),
                ("Python", _to_text(training.python)),
                ("commit", None if training.commit is None else format_code(training.commit)),
                ("MLflow run", None if training.run_id is None else format_code(training.run_id)),
                (
                    "base model",
                    None if not training.base_model else format_code(training.base_model),
                ),
            ]
        )
        if self.facts.learning_curve is None:
            return table
        return f"{table}\n\n![Learning curve]({LEARNING_CURVE})"

    def _format_packages(self) -> str:
        return format_table(
            (
                (_PACKAGE_NAMES.get(name, name), format_text(version))
                for name, version in self.agent.versions.items()
            ),
            header=("package", "version"),
        )


def _describe_selection(competitors: int) -> str:
    if competitors > 1:
        return (
            f"The kept checkpoint is the best of {competitors} in these episodes, which were "
            "played with deterministic actions after learning. Chance helps the best of several, "
            "so the mean return and its interval are biased upward. `promote` and `evaluate` play "
            "other episodes."
        )
    return (
        "The episodes were played with deterministic actions after learning. They did not "
        "influence which checkpoint was kept."
    )


def _list_environment(environment: Mapping[str, Any] | None) -> list[tuple[str, str | None]]:
    """Return the rows of an ``EnvSpec``."""
    if environment is None:
        return []
    kwargs, wrappers = environment.get("kwargs"), environment.get("additional_wrappers") or []
    names = (
        f"{wrapper['entry_point']} {json.dumps(wrapper['kwargs'])}"
        if wrapper.get("kwargs")
        else wrapper["entry_point"]
        for wrapper in wrappers
    )
    return [
        ("id", format_code(environment["id"])),
        ("arguments", format_code(json.dumps(kwargs)) if kwargs else None),
        ("wrappers", ", ".join(map(format_code, names)) or None),
        ("steps per episode", _prefix("at most ", _to_text(environment.get("max_episode_steps")))),
        ("reward threshold", _to_text(environment.get("reward_threshold"))),
    ]


def _format_space(space: SpaceInfo) -> str:
    text = " ".join(space.text.split())
    return format_code(text if len(text) <= _MAX_SPACE_LENGTH else space)


def _describe_time(training: CardTraining) -> str | None:
    if training.seconds is None:
        return None
    time = format_duration(training.seconds)
    if training.resumed_at is None:
        return time
    return f"{time} since the training was resumed at step {training.resumed_at:,}"


def _describe_hardware(training: CardTraining) -> str | None:
    if training.processor is None:
        return None
    count = training.torch_threads
    threads = "" if count is None else f", {count} thread{'' if count == 1 else 's'} of PyTorch"
    return f"{format_text(training.processor)}{threads}"


def _format_count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _to_text(value: object | None) -> str | None:
    return None if value is None else format_text(value)


def _prefix(prefix: str, text: str | None) -> str | None:
    return None if text is None else f"{prefix}{text}"
