"""The settings of ``MlflowCallback`` and ``autolog``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from mlflow.exceptions import MlflowException

from mlflow_sb3.autologging.evaluator import EvalEnv
from mlflow_sb3.autologging.kept_agent import ModelSettings, MonitorMode
from mlflow_sb3.registry import names


@dataclass(frozen=True)
class LogSettings:
    """What to log of a training. ``MlflowCallback`` and ``autolog`` explain the settings."""

    eval_env: EvalEnv | None = None
    eval_freq: int | None = None
    n_eval_episodes: int = 10
    is_automatic: bool = False
    """Whether ``autolog`` made the settings.

    Evaluations then have a budget. By default, there are ten of them. They are left out if the
    environment cannot be copied. An error of the logging does not end the training.
    """
    evaluates: bool = False
    """Whether ``autolog`` evaluates."""
    checkpoint_freq: int | None = None
    saves_every_evaluation: bool = False
    """Whether to log a checkpoint as often as evaluations are due."""
    video_freq: int | None = None
    has_last_video: bool = False
    """Whether to record a video of the kept agent."""
    gradient_norms: bool = False
    monitor: str = "eval/mean_reward"
    mode: MonitorMode = "max"
    model: ModelSettings | None = field(default_factory=ModelSettings)
    """None: log no model."""
    log_datasets: bool = False
    run_name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            MlflowException: A setting is invalid.
        """
        for name in ("eval_freq", "checkpoint_freq", "video_freq", "n_eval_episodes"):
            _check_positive(name, getattr(self, name))
        if self.mode not in get_args(MonitorMode):
            raise MlflowException.invalid_parameter_value(
                f"The mode of the monitored metric is {self.mode!r}. Use 'max' or 'min'."
            )
        if self.model is not None and self.model.registered_model_name is not None:
            names.check_model_name(self.model.registered_model_name)


def _check_positive(name: str, value: Any) -> None:
    if value is None or (isinstance(value, int) and value > 0):
        return
    raise MlflowException.invalid_parameter_value(
        f"{name} is {value!r}. Use an integer of 1 or more, or leave it out."
    )
