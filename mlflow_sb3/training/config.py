"""Resolve the options of a training to a complete configuration."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from mlflow_sb3.algorithms import algorithms, env_check, hyperparam_check, zoo_presets
from mlflow_sb3.algorithms.zoo_presets import Preset, PresetSource
from mlflow_sb3.envs import entry_points, env_spec, wrapper_config
from mlflow_sb3.flavor import model_hyperparams
from mlflow_sb3.registry import integrity
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.training import finetune, loop
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings, Selection
from mlflow_sb3.training.finetune import BaseAgent


@dataclass(frozen=True)
class TrainingConfig:
    """All settings that decide the trained weights, as JSON values.

    The attributes are the keys of the stored JSON in ``training.json`` and in snapshots.
    """

    env: str
    """Gymnasium id of the environment."""
    algo: str
    """Key of ``ALGORITHMS``, such as ``"dqn"``."""
    timesteps: int
    """Environment steps."""
    seed: int
    hyperparams: dict[str, Any]
    """Hyperparameters of the preset and of the caller, without SB3's defaults."""
    env_kwargs: dict[str, Any]
    """Arguments of the environment's constructor."""
    wrappers: list[Any]
    """Wrappers of the preset and of the caller, from the inside to the outside."""
    from_model: str
    """Model URI of the agent to fine-tune, with a version number instead of an alias, or ``""``."""
    from_model_id: str
    """Id of the logged model to fine-tune, or ``""``."""
    torch_threads: int
    """Threads of PyTorch during training."""
    preset: str
    """Origin of the tuned hyperparameters."""
    description: str
    """Environment as ``EnvSpec`` JSON, with its wrappers."""
    resolved: dict[str, str]
    """All hyperparameters as text, with SB3's defaults."""
    eval_freq: int | None = None
    """Environment steps between two checkpoints; see ``EvaluationSettings``."""
    eval_episodes: int = EvaluationSettings.episodes
    selection: Selection = EvaluationSettings.selection
    eval_budget: float = EvaluationSettings.budget
    eval_steps: list[int] | None = None
    race_episodes: int | None = None

    @property
    def evaluation(self) -> EvaluationSettings:
        """How checkpoints are evaluated and selected."""
        return EvaluationSettings(
            self.eval_freq,
            self.eval_episodes,
            self.selection,
            self.eval_budget,
            self.eval_steps,
            self.race_episodes,
        )

    def with_evaluation(self, settings: EvaluationSettings) -> TrainingConfig:
        """Return this configuration with the numbers that the budget decided."""
        steps = None if settings.steps is None else list(settings.steps)
        return replace(self, eval_steps=steps, race_episodes=settings.race_episodes)

    def to_params(self) -> dict[str, Any]:
        """Return MLflow parameters, with the prefix ``sb3/``."""
        # The environment of a fine-tuned agent may have wrappers from an earlier training, which
        # self.wrappers does not list. See from_model in resolve_config.
        has_inherited_wrappers = bool(self.from_model) and not self.wrappers
        wrappers = (
            env_spec.list_wrappers(self.description) if has_inherited_wrappers else self.wrappers
        )
        params = {
            "env": self.env,
            "env_kwargs": json.dumps(self.env_kwargs),
            "wrappers": json.dumps(wrappers),
            "algo": self.algo,
            "timesteps": self.timesteps,
            "seed": self.seed,
            "preset": self.preset,
            "torch_threads": self.torch_threads,
            "eval_freq": self.evaluation.get_interval(self.timesteps),
            "eval_episodes": self.eval_episodes,
            "selection": self.selection,
            "eval_budget": self.eval_budget,
        }
        return {f"sb3/{key}": value for key, value in (params | self.resolved).items()}

    def to_options(self) -> dict[str, str]:
        """Return parameters of the entry point ``train`` that give the same configuration.

        They contain the preset's values, so that a later change of the preset has no effect.
        ``train`` of an older commit has no options to evaluate checkpoints. They are left out if
        they have their defaults.
        """
        changed = {
            field.name: str(getattr(self, field.name))
            for field in fields(self)
            if field.default is not MISSING and getattr(self, field.name) != field.default
        }
        return changed | {
            "env": self.env,
            "algo": self.algo,
            "timesteps": str(self.timesteps),
            "seed": str(self.seed),
            "hyperparams": json.dumps(self.hyperparams),
            "preset": "none",
            "env_kwargs": json.dumps(self.env_kwargs),
            "wrappers": json.dumps(self.wrappers),
            "from_model": self.from_model,
            "torch_threads": str(self.torch_threads),
        }

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for ``TrainingConfig(**values)``."""
        return asdict(self)


def resolve_config(
    *,
    env: str,
    algo: str,
    timesteps: int | None,
    seed: int,
    hyperparams: dict[str, Any],
    preset: PresetSource,
    env_kwargs: dict[str, Any],
    wrappers: list[Any],
    from_model: str,
    torch_threads: int,
    eval_freq: int | None,
    eval_episodes: int,
    selection: Selection,
    eval_budget: float,
    eval_steps: list[int] | None,
    race_episodes: int | None,
    trust: FileTrust,
) -> tuple[TrainingConfig, BaseAgent | None]:
    """Complete the options of ``train`` with a preset and defaults, and check them.

    Args:
        env: Gymnasium id of the environment.
        algo: Key of ``ALGORITHMS``, such as ``"dqn"``.
        timesteps: Environment steps. None uses the preset's number, or ``DEFAULT_TIMESTEPS``.
        seed: Seed of the training.
        hyperparams: Hyperparameters that override those of the preset.
        preset: ``"zoo"`` for rl_zoo3's tuned hyperparameters, or ``"none"``.
        env_kwargs: Arguments of the environment's constructor.
        wrappers: Wrappers to apply after those of the preset.
        from_model: Model URI of an agent to fine-tune, or ``""``. No preset is used then. The agent
            keeps the arguments and wrappers of the environment that it was trained in, unless the
            caller sets ``env_kwargs``, wrappers or another environment id.
        torch_threads: Threads of PyTorch during training.
        eval_freq: Environment steps between two checkpoints; see ``EvaluationSettings``.
        eval_episodes: Episodes of each checkpoint.
        selection: How a checkpoint is selected.
        eval_budget: Share of the learning time for evaluations; see ``EvaluationBudget``.
        eval_steps: Environment steps of all checkpoints but the last, instead of ``eval_freq``.
        race_episodes: Fresh episodes of the selection. None: as the budget allows.
        trust: Whether the model of ``from_model`` may be unpickled. If it has a public key, that
            key must have signed the model.

    Returns:
        The configuration, and the loaded agent of ``from_model``.

    Raises:
        MlflowException: An option is invalid, two options do not fit together, or the agent of
            ``from_model`` cannot be loaded.
    """
    algorithms.get_algorithm_class(algo)
    entry_points.trust_options(env)
    tuned = _find_preset(env, algo, env_kwargs, preset=preset, from_model=from_model)
    tuned = tuned.override(hyperparams)
    hyperparam_check.check_hyperparams(algo, tuned.hyperparams)
    all_wrappers = tuned.add_wrappers(wrappers)
    entry_points.trust_options(env, map(wrapper_config.get_entry_point, all_wrappers))
    description = env_spec.compose_spec(env, kwargs=env_kwargs, wrappers=all_wrappers)
    if from_model and not (env_kwargs or all_wrappers):
        description = finetune.get_base_env_spec(from_model, description, trust=trust)
    resolved = _resolve_hyperparams(algo, tuned.hyperparams, description)
    base_agent = None
    if from_model:
        base_agent = finetune.load_base_agent(
            from_model,
            algo,
            description,
            tuned.hyperparams,
            seed=loop.get_learning_seed(seed),
            trust=trust,
        )
        resolved = model_hyperparams.read_hyperparams(base_agent.model)
        from_model = integrity.pin_version_uri(from_model)
    config = TrainingConfig(
        env=env,
        algo=algo,
        timesteps=timesteps or tuned.timesteps or zoo_presets.DEFAULT_TIMESTEPS,
        seed=seed,
        hyperparams=tuned.hyperparams,
        env_kwargs=env_kwargs,
        wrappers=all_wrappers,
        from_model=from_model,
        from_model_id=(base_agent.model_id or "") if base_agent else "",
        torch_threads=torch_threads,
        preset=tuned.origin,
        description=description,
        resolved=resolved,
        eval_freq=eval_freq,
        eval_episodes=eval_episodes,
        selection=selection,
        eval_budget=eval_budget,
        eval_steps=eval_steps,
        race_episodes=race_episodes,
    )
    return config, base_agent


def _find_preset(
    env: str, algo: str, env_kwargs: dict[str, Any], *, preset: PresetSource, from_model: str
) -> Preset:
    """Return the preset of an environment. It is empty for fine-tuning."""
    # make_env reports an invalid id. It also imports the module in front of the id, such as
    # ale_py for Atari games. find_preset needs the registered environment.
    env_spec.make_env(env, env_kwargs).close()
    if from_model:
        return Preset(from_model)
    return zoo_presets.find_preset(algo, env, source=preset)


def _resolve_hyperparams(
    algo: str, hyperparams: dict[str, Any], description: str
) -> dict[str, str]:
    """Check the environment, and complete the hyperparameters with SB3's defaults."""
    with env_spec.make_from_spec(description) as env:
        env_check.check_env(algo, hyperparams, env)
        observation_space = env.observation_space
    return hyperparam_check.resolve_hyperparams(algo, hyperparams, observation_space)
