"""Train agents from Python."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.utils.autologging_utils import disable_autologging

from mlflow_sb3.flavor.train_extra import check_train_extra
from mlflow_sb3.lifecycle import active_run
from mlflow_sb3.lifecycle.arguments import check_choice, check_minimum, copy_json, to_text
from mlflow_sb3.lifecycle.results import TrainResult
from mlflow_sb3.tracking.file_trust import FileTrust

if TYPE_CHECKING:
    from mlflow_sb3.algorithms.zoo_presets import PresetSource
    from mlflow_sb3.registry.signing import KeyPath
    from mlflow_sb3.training.checkpoint_selection import Selection
    from mlflow_sb3.training.loop import TrainingResult
    from mlflow_sb3.training.train_step import TrainSettings

_logger = logging.getLogger(__name__)


def train(
    env: str = "CartPole-v1",
    algo: str = "dqn",
    *,
    total_timesteps: int | None = None,
    seed: int = 0,
    hyperparams: dict[str, Any] | None = None,
    preset: PresetSource = "zoo",
    env_kwargs: dict[str, Any] | None = None,
    wrappers: list[Any] | None = None,
    from_model: str = "",
    eval_freq: int | None = None,
    eval_episodes: int = 10,
    selection: Selection = "race",
    eval_budget: float = 0.1,
    race_episodes: int | None = None,
    torch_threads: int = 1,
    resume: str = "",
    snapshot_every: int | None = None,
    signing_key: KeyPath | None = None,
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
) -> TrainResult:
    """Train an agent with Stable-Baselines3 and keep its best checkpoint.

    The training is logged to the active run, or to a new run. To register the agent, pass
    ``result.model`` to ``mlflow_sb3.log_model``. The arguments are the parameters of the step
    ``train``; ``total_timesteps`` is its ``timesteps``.

    Args:
        env: Gymnasium id, ``"module:EnvId-v0"``, or ``"module:function"`` for a function that
            returns a ``VecEnv``.
        algo: Name of the algorithm, such as ``"dqn"``.
        total_timesteps: Environment steps. By default, the number of the preset, or 50000.
        seed: Seed of the training and of the checkpoint evaluation.
        hyperparams: Hyperparameters. They override the same keys of the preset.
        preset: ``"zoo"`` for rl_zoo3's tuned hyperparameters, or ``"none"`` for SB3's defaults.
        env_kwargs: Keyword arguments of the environment.
        wrappers: Gymnasium wrappers, ``"module:Class"`` or ``{"module:Class": {"argument": 1}}``.
        from_model: URI of a model to fine-tune.
        eval_freq: Environment steps between two evaluated checkpoints.
        eval_episodes: Episodes of each checkpoint during the training.
        selection: ``"race"``, ``"best"`` or ``"none"``.
        eval_budget: Time that the training may wait for evaluations, as a fraction of the time of
            learning.
        race_episodes: New episodes of the race.
        torch_threads: Threads of PyTorch. The trained weights depend on it.
        resume: Id of the run of an interrupted training to resume. Other arguments must have their
            defaults, or the values of that training.
        snapshot_every: Environment steps between two snapshots.
        signing_key: PEM file of the Ed25519 private key that signs the snapshots and the agent.
        public_key: PEM file of the Ed25519 public key that must have signed the model of
            ``from_model``.
        allow_pickle: Unpickle files that no trusted key signed, which can run any code.

    Raises:
        MlflowException: An argument is invalid, a package of the extra ``[train]`` is missing, or
            the run cannot be written to.
        Interrupted: A signal such as Ctrl-C stopped the training. It is a ``KeyboardInterrupt``.
    """
    check_train_extra("train")
    check_minimum("total_timesteps", total_timesteps, 1)
    check_minimum("seed", seed, 0)
    check_choice("preset", preset, ("zoo", "none"))
    check_minimum("eval_freq", eval_freq, 1)
    check_minimum("eval_episodes", eval_episodes, 1)
    check_choice("selection", selection, ("race", "best", "none"))
    check_minimum("eval_budget", eval_budget, 0)
    check_minimum("race_episodes", race_episodes, 1)
    check_minimum("torch_threads", torch_threads, 1)
    check_minimum("snapshot_every", snapshot_every, 1)
    options = {
        "env": env,
        "algo": algo.lower(),
        "timesteps": total_timesteps,
        "seed": seed,
        "hyperparams": copy_json("hyperparams", hyperparams or {}),
        "preset": preset,
        "env_kwargs": copy_json("env_kwargs", env_kwargs or {}),
        "wrappers": copy_json("wrappers", wrappers or []),
        "from_model": from_model,
        "eval_freq": eval_freq,
        "eval_episodes": eval_episodes,
        "selection": selection,
        "eval_budget": eval_budget,
        "race_episodes": race_episodes,
        "torch_threads": torch_threads,
    }
    from mlflow_sb3.training.train_step import TrainSettings

    trust = FileTrust(to_text(signing_key), to_text(public_key), allow_pickle)
    settings = TrainSettings(snapshot_every, trust=trust, warn=_logger.warning)
    # A training logs all that autolog would log.
    with active_run.use_run() as run_id, disable_autologging():
        result = _train(run_id, resume, options, settings)
    return TrainResult.from_training(result, run_id)


def _train(
    run_id: str, resume: str, options: dict[str, Any], settings: TrainSettings
) -> TrainingResult:
    from mlflow_sb3.training import train_step

    if not resume:
        return train_step.start_training(run_id, options | {"eval_steps": None}, settings)
    try:
        return train_step.resume_training(run_id, resume, _find_changed_options(options), settings)
    except train_step.OptionConflictError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def _find_changed_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that differ from the defaults of ``train``."""
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(train).parameters.items()
    }
    defaults["timesteps"] = defaults["total_timesteps"]
    return {name: value for name, value in options.items() if value not in (defaults[name], {}, [])}
