"""Let ``learn`` of SB3's algorithms log to MLflow by itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from mlflow.utils.autologging_utils import autologging_integration
from mlflow.utils.autologging_utils.safety import safe_patch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from mlflow_sb3.autologging.callback import MlflowCallback
from mlflow_sb3.autologging.kept_agent import ModelSettings, MonitorMode
from mlflow_sb3.autologging.training_log import LogSettings

INTEGRATION_NAME = "mlflow_sb3"
"""Name of the integration in ``mlflow.utils.autologging_utils``."""
_ALGORITHM_PACKAGES = ("stable_baselines3", "sb3_contrib", "sbx")
_EVALUATIONS = 10
"""Evaluations of a training, by default."""
_MIN_VERSION, _END_VERSION = (2, 7), (3, 0)
"""Tested versions of stable-baselines3: from the first, below the second."""

_logger = logging.getLogger("mlflow_sb3")
_is_learning: ContextVar[bool] = ContextVar("is_learning", default=False)
"""Whether a patched ``learn`` is running. SB3's ``learn`` methods call each other."""


@autologging_integration(INTEGRATION_NAME)  # type: ignore[no-untyped-call, untyped-decorator]
def autolog(  # noqa: PLR0917 the arguments of MLflow's autolog functions
    log_models: bool = True,
    log_datasets: bool = True,
    log_input_examples: bool = True,
    log_model_signatures: bool = True,
    registered_model_name: str | None = None,
    extra_tags: dict[str, str] | None = None,
    disable: bool = False,  # noqa: ARG001 autologging_integration reads it
    exclusive: bool = False,  # noqa: ARG001 safe_patch reads it
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    checkpoint: bool = True,
    checkpoint_monitor: str = "eval/mean_reward",
    checkpoint_mode: MonitorMode = "max",
    checkpoint_save_best_only: bool = True,
    checkpoint_save_freq: int | None = None,
) -> None:
    """Log every training with SB3, sb3-contrib or SBX to MLflow.

    Each later call of ``learn`` logs parameters, metrics, evaluations, a video of the kept agent if
    it can be rendered, and the kept agent as a model. It logs to the active run, or else to a new
    run. Call this before ``learn``. An algorithm of your own is included if it is defined before
    this call, or if its ``learn`` calls that of SB3.

    A problem of the logging is a warning. It does not end the training.

    Args:
        log_models: Whether to log the kept agent as a model.
        log_datasets: Whether to log the environment as the dataset of the run.
        log_input_examples: Whether the model has an observation as input example.
        log_model_signatures: Whether the model has a signature.
        registered_model_name: Registered model that gets each kept agent as a new version, with
            the alias ``challenger``.
        extra_tags: Tags of each run.
        disable: Restore SB3's ``learn``.
        exclusive: Whether to log nothing if the caller has started a run.
        disable_for_unsupported_versions: Whether to log nothing with a version of
            stable-baselines3 that was not tested. By default, only a warning is shown.
        silent: Whether to hide all warnings and messages of the logging.
        checkpoint: Whether to keep the weights with the best value of ``checkpoint_monitor``. If
            not, the last weights are kept, and no evaluations are played.
        checkpoint_monitor: Metric that decides which weights are kept. Evaluations are only played
            for ``"eval/mean_reward"`` and other metrics that start with ``"eval/"``.
        checkpoint_mode: Whether the best value is the ``"max"`` or the ``"min"``.
        checkpoint_save_best_only: Whether to log only the kept weights. If not, a checkpoint is
            logged every ``checkpoint_save_freq`` steps too.
        checkpoint_save_freq: Environment steps between two evaluations. By default, a tenth of the
            training. An evaluation is skipped if all of them would take more than five seconds and
            more than a twentieth of the time of learning.
    """
    _logger.setLevel(logging.CRITICAL if silent else logging.NOTSET)
    if not _is_supported() and disable_for_unsupported_versions:
        return
    settings = LogSettings(
        evaluates_automatically=checkpoint and checkpoint_monitor.startswith("eval/"),
        has_last_video=True,
        monitor=checkpoint_monitor if checkpoint else "",
        mode=checkpoint_mode,
        model=ModelSettings(
            registered_model_name,
            has_signature=log_model_signatures,
            has_input_example=log_input_examples,
        )
        if log_models
        else None,
        log_datasets=log_datasets,
        tags=dict(extra_tags or {}),
    )
    for cls in _list_algorithms():
        patch = _make_patch(settings, checkpoint_save_freq, logs_all=not checkpoint_save_best_only)
        safe_patch(INTEGRATION_NAME, cls, "learn", patch)  # type: ignore[no-untyped-call]


def _make_patch(
    settings: LogSettings, checkpoint_save_freq: int | None, *, logs_all: bool
) -> Callable[..., Any]:
    """Return the function that replaces ``learn``."""

    def learn(original: Callable[..., Any], self: BaseAlgorithm, *args: Any, **kwargs: Any) -> Any:
        arguments = inspect.signature(original).bind(self, *args, **kwargs).arguments
        callbacks = _to_list(arguments.get("callback"))
        if _is_learning.get() or any(map(_contains_mlflow_callback, callbacks)):
            return original(self, *args, **kwargs)
        freq = checkpoint_save_freq or max(1, int(arguments["total_timesteps"]) // _EVALUATIONS)
        callback = MlflowCallback.from_settings(
            replace(
                settings,
                eval_freq=freq if settings.evaluates_automatically else None,
                checkpoint_freq=freq if logs_all else None,
            )
        )
        callback.open(self)
        arguments = {**arguments, "callback": [*callbacks, callback]}
        arguments.pop("self")
        with _mark_learning():
            try:
                return original(self, **arguments)
            except BaseException as error:
                callback.close(error)
                raise

    return learn


@contextmanager
def _mark_learning() -> Iterator[None]:
    token = _is_learning.set(True)
    try:
        yield
    finally:
        _is_learning.reset(token)


def _to_list(callback: Any) -> list[BaseCallback]:
    """Return the argument ``callback`` of ``learn`` as a list."""
    if callback is None:
        return []
    callbacks: Sequence[Any] = callback if isinstance(callback, list) else [callback]
    return [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in callbacks]


def _contains_mlflow_callback(callback: BaseCallback) -> bool:
    if isinstance(callback, CallbackList):
        return any(map(_contains_mlflow_callback, callback.callbacks))
    return isinstance(callback, MlflowCallback)


def _list_algorithms() -> list[type[BaseAlgorithm]]:
    """Return all loaded algorithm classes that define ``learn``, after importing the packages."""
    for package in _ALGORITHM_PACKAGES:
        if importlib.util.find_spec(package) is not None:
            importlib.import_module(package)
    return [
        cls
        for cls in _list_subclasses(BaseAlgorithm)  # type: ignore[type-abstract]
        if "learn" in vars(cls)
    ]


def _list_subclasses(cls: type[BaseAlgorithm]) -> list[type[BaseAlgorithm]]:
    nested = [_list_subclasses(subclass) for subclass in cls.__subclasses__()]
    return list(dict.fromkeys([*cls.__subclasses__(), *itertools.chain(*nested)]))


def _is_supported() -> bool:
    """Return whether this version of SB3 was tested. Warn if it was not."""
    version = importlib.metadata.version("stable-baselines3")
    is_supported = _MIN_VERSION <= tuple(map(int, version.split(".")[:2])) < _END_VERSION
    if not is_supported:
        _logger.warning(
            "mlflow_sb3.autolog was tested with stable-baselines3 %s up to, but not including, %s. "
            "Version %s is installed.",
            *(".".join(map(str, one)) for one in (_MIN_VERSION, _END_VERSION)),
            version,
        )
    return is_supported
