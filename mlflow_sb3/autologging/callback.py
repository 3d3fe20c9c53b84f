"""The SB3 callback that logs a training to MLflow."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Self

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3.autologging.evaluator import EvalEnv
from mlflow_sb3.autologging.kept_agent import ModelSettings, MonitorMode
from mlflow_sb3.autologging.training_log import LogSettings, TrainingLog


class LearnInterruptedError(RuntimeError):
    """A call of ``learn`` ended without SB3's ``on_training_end``."""


class MlflowCallback(BaseCallback):
    """Log a training to MLflow, and log the best agent as a model without pickle.

    The active run is used and stays open. Without one, each call of ``learn`` gets a run; a call
    with ``reset_num_timesteps=False`` continues the run of the call before. The training does not
    wait for the tracking server: metrics and files go to a journal on disk first, and a thread
    sends them.

    If ``learn`` ends with an exception, the run ends as FAILED with a checkpoint. SB3 does not tell
    callbacks of exceptions, so this happens at the next call of ``learn``, when the process exits,
    or at the end of a ``with`` block::

        with MlflowCallback() as callback:
            model.learn(50_000, callback=callback)

    ``autolog`` ends the run at once.
    """

    def __init__(
        self,
        *,
        eval_env: EvalEnv | None = None,
        eval_freq: int | None = None,
        n_eval_episodes: int = 10,
        checkpoint_freq: int | None = None,
        video_freq: int | None = None,
        gradient_norms: bool = False,
        log_model: bool = True,
        registered_model_name: str | None = None,
        log_model_signatures: bool = True,
        monitor: str = "eval/mean_reward",
        mode: MonitorMode = "max",
        run_name: str | None = None,
        tags: dict[str, str] | None = None,
        verbose: int = 0,
    ) -> None:
        """Create the callback. All intervals are environment steps, counted over all environments.

        Args:
            eval_env: Environment for evaluations: a Gymnasium id, an environment or a ``VecEnv``.
                By default, the training environment is made again. ``VecNormalize`` is applied as
                in the training.
            eval_freq: Steps between two evaluations. By default, 10,000 if ``eval_env`` is set, and
                otherwise no evaluations.
            n_eval_episodes: Episodes of an evaluation, with deterministic actions.
            checkpoint_freq: Steps between two checkpoints in the artifact folder ``checkpoints``.
            video_freq: Steps between two videos of an episode in the artifact folder ``videos``.
                The kept agent gets a video too.
            gradient_norms: Whether to log the norms of the gradients.
            log_model: Whether to log the kept agent as a model. It has the best value of
                ``monitor``, or the last weights if that metric was never logged.
            registered_model_name: Registered model that gets the agent as a new version, with the
                alias ``challenger``.
            log_model_signatures: Whether the model has a signature.
            monitor: Metric that decides which agent is kept, such as ``"rollout/ep_rew_mean"``.
            mode: Whether the best value is the ``"max"`` or the ``"min"``.
            run_name: Name of a run that is started here.
            tags: Tags of the run.
            verbose: As in SB3.
        """
        if eval_env is not None and eval_freq is None:
            eval_freq = 10_000
        settings = LogSettings(
            eval_env=eval_env,
            eval_freq=eval_freq,
            n_eval_episodes=n_eval_episodes,
            checkpoint_freq=checkpoint_freq,
            video_freq=video_freq,
            gradient_norms=gradient_norms,
            monitor=monitor,
            mode=mode,
            model=ModelSettings(registered_model_name, has_signature=log_model_signatures)
            if log_model
            else None,
            run_name=run_name,
            tags=dict(tags or {}),
        )
        self._set_up(settings, verbose)

    @classmethod
    def from_settings(cls, settings: LogSettings) -> Self:
        """Create the callback with settings that the constructor does not have."""
        callback = cls.__new__(cls)
        callback._set_up(settings, verbose=0)
        return callback

    def _set_up(self, settings: LogSettings, verbose: int) -> None:
        super().__init__(verbose)
        self._settings = settings
        self._log: TrainingLog | None = None
        self._is_opened_early = False
        self._run_id: str | None = None
        self._continued_run_id: str | None = None

    def __enter__(self) -> Self:
        """Return the callback."""
        return self

    def __exit__(self, exc_type: object, error: BaseException | None, traceback: object) -> None:
        """End the run as FAILED if ``learn`` did not reach its end."""
        self.close(error)

    @property
    def run_id(self) -> str | None:
        """Id of the run of the last call of ``learn``. None before the first call."""
        return self._run_id

    def open(self, model: BaseAlgorithm) -> None:
        """Start the run before ``learn`` is called, so that an error does not end ``learn``.

        Args:
            model: Algorithm that is about to learn.

        Raises:
            MlflowException: A setting is invalid, or the tracking server does not answer.
        """
        self._open(model, is_continued=False)
        self._is_opened_early = True

    def close(self, error: BaseException | None = None) -> None:
        """End the run as FAILED, with a checkpoint, if ``learn`` did not reach its end.

        Args:
            error: Exception that ended ``learn``, if it is known.
        """
        log, self._log = self._log, None
        if log is not None:
            atexit.unregister(self.close)
            log.fail(error or LearnInterruptedError("learn did not reach its end"))

    def _open(self, model: BaseAlgorithm, *, is_continued: bool) -> None:
        self.close()
        self._log = TrainingLog(
            model, self._settings, run_id=self._continued_run_id if is_continued else None
        )
        run = self._log.run
        self._run_id = run.run_id
        self._continued_run_id = run.run_id if run.is_own else None
        atexit.register(self.close)

    def _init_callback(self) -> None:
        if not self._is_opened_early:
            self._open(self.model, is_continued=self.model.num_timesteps > 0)
        self._is_opened_early = False

    def _on_training_start(self) -> None:
        total_timesteps: int = self.locals["total_timesteps"]
        self._call(lambda log: log.start(total_timesteps))

    def _on_step(self) -> bool:
        self._call(TrainingLog.step)
        return True

    def _on_training_end(self) -> None:
        self._call(TrainingLog.finish)
        self._log = None
        atexit.unregister(self.close)

    def _call(self, function: Callable[[TrainingLog], None]) -> None:
        """Call a function with the log. End the run as FAILED if it raises an exception."""
        if self._log is None:
            raise RuntimeError("The callback was closed during learn. Create another one.")
        try:
            function(self._log)
        except BaseException as error:
            self.close(error)
            raise
