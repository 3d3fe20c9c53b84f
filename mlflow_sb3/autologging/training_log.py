"""Log one call of ``learn``: metrics, evaluations, checkpoints, videos and the model."""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.algorithms.algorithms import get_algorithm_name
from mlflow_sb3.autologging.evaluator import Evaluator, build_policy, make_evaluator
from mlflow_sb3.autologging.gradient_norms import GradientNorms
from mlflow_sb3.autologging.kept_agent import BestCheckpoint, use_checkpoint
from mlflow_sb3.autologging.learn_run import LearnRun, describe_training, get_env_id
from mlflow_sb3.autologging.log_settings import LogSettings
from mlflow_sb3.autologging.metric_output import MetricOutput
from mlflow_sb3.client import permissions
from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.envs import rollout
from mlflow_sb3.flavor import source_env
from mlflow_sb3.promotion.challengers import SCORE_METRIC
from mlflow_sb3.reports.video import record_episode
from mlflow_sb3.tracking.run_logger import MetricPoint
from mlflow_sb3.training import loop, training_run, version_tags
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.eval_budget import EvaluationBudget

CHECKPOINT_FOLDER = "checkpoints"
"""Artifact folder with zip files of SB3's ``save``."""
_EVALUATIONS = 10
"""Evaluations of a training, by default."""
VIDEO_FOLDER = "videos"
"""Artifact folder with MP4 files."""

_logger = logging.getLogger(__name__)


class TrainingLog:
    """Log of one call of ``learn``. Call ``start``, ``step``, and ``finish`` or ``fail``."""

    def __init__(
        self, model: BaseAlgorithm, settings: LogSettings, *, run_id: str | None = None
    ) -> None:
        """Check the settings, and start the run.

        Args:
            model: Algorithm that is about to learn.
            settings: What to log.
            run_id: Run of an earlier call of ``learn`` to continue. By default, a new run.

        Raises:
            MlflowException: A setting is invalid, or the tracking server does not answer.
        """
        self._model = model
        self._settings = settings
        self._env_spec_json = _find_env_spec(model)
        self._evaluator = self._make_evaluator()
        name = settings.model.registered_model_name if settings.model is not None else None
        if name is not None:
            permissions.check_registration(name)
        env_id, algo = get_env_id(self._env_spec_json), get_algorithm_name(type(model))
        seed = "" if model.seed is None else f" seed {model.seed}"
        self.run = LearnRun(
            settings.run_name or f"train {env_id} {algo}{seed}",
            settings.tags,
            run_id=run_id,
            becomes_active=settings.is_automatic,
        )
        self._best = BestCheckpoint(settings.mode)
        self._can_keep = source_env.has_torch_weights(model)
        self._output = MetricOutput(self.run.logger, self._watch_monitor)
        self._gradient_norms: GradientNorms | None = None
        self._can_record = True
        self._has_started = self._is_closed = False

    def start(self, total_timesteps: int) -> None:
        """Log the parameters, and receive the metrics of SB3's logger from now on.

        Args:
            total_timesteps: Timesteps of the model at the end of ``learn``.
        """
        settings, now = self._settings, self._model.num_timesteps
        params = describe_training(self._model, total_timesteps, self._env_spec_json)
        self._params = {key: str(value) for key, value in params.items()}
        self.run.log_setup(params, self._env_spec_json)
        eval_freq = settings.eval_freq
        if settings.is_automatic and eval_freq is None:
            eval_freq = max(1, (total_timesteps - now) // _EVALUATIONS)
        self._evaluations = _Interval(eval_freq if self._evaluator else None, now)
        self._checkpoints = _Interval(
            eval_freq if settings.saves_every_evaluation else settings.checkpoint_freq, now
        )
        self._videos = _Interval(settings.video_freq, now)
        self._budget = EvaluationBudget()
        self._start_time = time.monotonic()
        self._evaluated_digest = ""
        if settings.gradient_norms:
            self._gradient_norms = GradientNorms(self._model)
        self._model.logger.output_formats.append(self._output)
        self._has_started = True

    def step(self) -> None:
        """Evaluate, save a checkpoint or record a video, if one of them is due."""
        now = self._model.num_timesteps
        if self._evaluator is not None and self._evaluations.is_due(now) and self._may_evaluate():
            self._evaluate(self._evaluator)
        if self._checkpoints.is_due(now):
            self._log_checkpoint(Checkpoint.from_model(self._model))
        if self._videos.is_due(now):
            self._log_video(now)

    def finish(self) -> None:
        """Log the kept agent, deliver everything, and end the run."""
        model = self._model
        if model.logger.name_to_value:  # SB3 does not log the values of the last gradient steps
            model.logger.dump(model.num_timesteps)
        # On-policy algorithms change the weights once more after their last step.
        if self._evaluator is not None and not self._is_evaluated():
            self._evaluate(self._evaluator)
        self._warn_without_monitor()
        kept = self._best.checkpoint or Checkpoint.from_model(model)
        with use_checkpoint(model, kept) if self._can_keep else nullcontext():
            score = self._log_score(kept)
            if self._settings.has_last_video or self._settings.video_freq is not None:
                self._log_video(kept.step)
            if self._settings.model is not None:
                facts = version_tags.describe_version(self._params, score)
                info = self._settings.model.log(model, self.run.run_id, step=kept.step, facts=facts)
                if info is None:
                    self._log_checkpoint(kept)
        if self._settings.log_datasets and self._env_spec_json is not None:
            self.run.log_environment_as_dataset(
                get_env_id(self._env_spec_json), self._env_spec_json
            )
        self._close(None)

    def fail(self, error: BaseException) -> None:
        """Log the current and the best weights as checkpoints, and end the run as FAILED."""
        if self._is_closed:
            return
        try:
            if self._best.checkpoint is not None:
                path = f"{CHECKPOINT_FOLDER}/best.zip"
                self.run.logger.log_file(path, self._best.checkpoint.archive)
            self._log_checkpoint(Checkpoint.from_model(self._model))
        except Exception as problem:  # noqa: BLE001 the error of the caller matters more
            _logger.warning("No checkpoint was logged: %s: %s", type(problem).__name__, problem)
        finally:
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        self._is_closed = True
        if self._gradient_norms is not None:
            self._gradient_norms.remove()
        if self._has_started:
            self._model.logger.output_formats.remove(self._output)
        self.run.close(error)

    def _make_evaluator(self) -> Evaluator | None:
        settings = self._settings
        if settings.is_automatic:
            is_wanted = settings.evaluates and self._env_spec_json is not None
        else:
            is_wanted = settings.eval_freq is not None
        if not is_wanted:
            return None
        return make_evaluator(self._model, settings.eval_env, self._env_spec_json)

    def _is_evaluated(self) -> bool:
        digest = loop.compute_weights_digest(self._model)
        return self._can_keep and digest == self._evaluated_digest

    def _may_evaluate(self) -> bool:
        """Return whether the budget allows to wait. An interval of the caller has no budget."""
        if not self._settings.is_automatic:
            return True
        seconds = time.monotonic() - self._start_time
        self._budget.learn_seconds = seconds - self._budget.wait_seconds
        return self._budget.allows_wait()

    def _evaluate(self, evaluator: Evaluator) -> None:
        """Evaluate the current weights, and pass the result to all outputs of SB3's logger."""
        start = time.monotonic()
        episodes = evaluator.play(self._settings.n_eval_episodes)
        self._budget.add_wait(time.monotonic() - start)
        self._evaluated_digest = loop.compute_weights_digest(self._model)
        summary = rollout.summarize_returns(episodes)
        metrics = {
            "eval/mean_reward": summary.mean_return,
            "eval/mean_ep_length": summary.mean_length,
        }
        if episodes.success_rate is not None:
            metrics["eval/success_rate"] = episodes.success_rate
        for output in self._model.logger.output_formats:
            output.write(metrics, dict.fromkeys(metrics, ()), self._model.num_timesteps)

    def _watch_monitor(self, metrics: dict[str, object]) -> None:
        value = metrics.get(self._settings.monitor)
        if not self._can_keep:  # SBX cannot load weights into a model
            return
        if isinstance(value, (int, float, np.number)) and math.isfinite(value):
            self._best.offer(self._model, float(value))

    def _warn_without_monitor(self) -> None:
        monitor = self._settings.monitor
        is_expected = self._evaluator is not None or not monitor.startswith("eval/")
        if monitor and is_expected and self._can_keep and self._best.checkpoint is None:
            _logger.warning(
                "The metric %s, which decides which agent is kept, was never logged. The last "
                "weights are kept. Use a metric of SB3's logger, such as rollout/ep_rew_mean.",
                monitor,
            )

    def _log_score(self, kept: Checkpoint) -> float | None:
        """Log the step of the kept weights, and their mean return over fresh episodes."""
        now = now_ms()
        points = [MetricPoint(training_run.STEP_METRIC, float(kept.step), now, 0)]
        score = None
        if self._evaluator is not None:
            count = self._settings.n_eval_episodes
            episodes = self._evaluator.play(count, first_episode=count)
            score = rollout.summarize_returns(episodes).mean_return
            points.append(MetricPoint(SCORE_METRIC, score, now, 0))
        self.run.logger.log_metrics(points)
        return score

    def _log_checkpoint(self, checkpoint: Checkpoint) -> None:
        path = f"{CHECKPOINT_FOLDER}/{_format_step(checkpoint.step)}.zip"
        self.run.logger.log_file(path, checkpoint.archive)

    def _log_video(self, step: int) -> None:
        """Record an episode with the current weights. A failure is only a warning."""
        if not self._can_record or self._env_spec_json is None:
            return
        with TemporaryDirectory() as folder:
            try:
                policy = build_policy(self._model, self._env_spec_json)
                seed = self._model.seed or 0
                path = record_episode(policy, self._env_spec_json, seed, Path(folder))
            except Exception as error:  # noqa: BLE001 each renderer has its own errors
                self._can_record = False
                _logger.warning("No video was recorded: %s: %s", type(error).__name__, error)
                return
            self.run.logger.log_file(f"{VIDEO_FOLDER}/{_format_step(step)}.mp4", path.read_bytes())


class _Interval:
    """Decide when something is due that repeats after a number of timesteps."""

    def __init__(self, every: int | None, start: int) -> None:
        self._every = every
        self._next: float = math.inf if every is None else start + every

    def is_due(self, step: int) -> bool:
        """Return whether the next time has come, and plan the one after it."""
        if step < self._next or self._every is None:
            return False
        self._next += self._every * math.ceil((step + 1 - self._next) / self._every)
        return True


def _format_step(step: int) -> str:
    return f"step_{step:09d}"


def _find_env_spec(model: BaseAlgorithm) -> str | None:
    """Return the environment as ``EnvSpec`` JSON. None, with a warning, if it has none."""
    try:
        description = source_env.find_source_env(model).description
    except MlflowException as error:
        _logger.warning(error.message)
        return None
    if description is None:
        _logger.warning(
            "mlflow-sb3 cannot make a copy of the training environment: it is not registered with "
            "Gymnasium, or a wrapper does not inherit from gymnasium.utils.RecordConstructorArgs. "
            "Without a copy, there are no videos, and the agent cannot be promoted."
        )
    return description
