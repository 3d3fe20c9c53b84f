"""How an agent is trained, down to the last hyperparameter: resolved from what was asked for, and written down to be followed again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mlflow_sb3.algorithms import algorithms, zoo_presets
from mlflow_sb3.envs import env_spec
from mlflow_sb3.registry import integrity
from mlflow_sb3.training import finetune, loop
from mlflow_sb3.training.finetune import BaseAgent


@dataclass(frozen=True)
class TrainingConfig:
    """All that decides which agent comes out of a training; JSON values."""

    env: str
    algo: str
    timesteps: int
    seed: int
    hyperparams: dict[str, Any]
    """Those that are not SB3's defaults, with the preset's."""
    env_kwargs: dict[str, Any]
    wrappers: list[Any]
    """With the preset's, the innermost first."""
    from_model: str
    """A version of a registered model or the id of a LoggedModel, which an alias that moves on does not change."""
    from_model_id: str
    """Of that LoggedModel, if it is one."""
    torch_threads: int
    preset: str
    """Where hyperparameters were looked up."""
    description: str
    """The environment, as ``EnvSpec`` JSON."""
    resolved: dict[str, str]
    """Every hyperparameter that is used, as text."""

    def params(self) -> dict[str, Any]:
        """As parameters of a run, under ``sb3/``."""
        given = {
            "env": self.env,
            "env_kwargs": json.dumps(self.env_kwargs),
            "wrappers": json.dumps(
                env_spec.list_wrappers(self.description)
                if self.from_model and not self.wrappers
                else self.wrappers
            ),
            "algo": self.algo,
            "timesteps": self.timesteps,
            "seed": self.seed,
            "preset": self.preset,
            "torch_threads": self.torch_threads,
        }
        return {f"sb3/{key}": value for key, value in (given | self.resolved).items()}

    def options(self) -> dict[str, str]:
        """As parameters of the entry point ``train``, which make the same recipe wherever presets may have changed."""
        return {
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
        """As JSON values, for ``Recipe(**values)``."""
        return asdict(self)


def resolve_config(
    *,
    env: str,
    algo: str,
    timesteps: int | None,
    seed: int,
    hyperparams: dict[str, Any],
    preset: zoo_presets.PresetSource,
    env_kwargs: dict[str, Any],
    wrappers: list[Any],
    from_model: str,
    torch_threads: int,
) -> tuple[TrainingConfig, BaseAgent | None]:
    """Find what the options of ``train`` leave open, and refuse what does not fit together.

    Returns:
        The recipe, and the loaded agent of ``from_model``.

    Raises:
        MlflowException: In one sentence, what does not fit and what would.
    """
    algorithms.find_algorithm(algo)
    env_spec.make_env(
        env, env_kwargs
    ).close()  # imports the module in front of the id, which may register a game of Atari
    tuned = (
        zoo_presets.Preset(from_model)
        if from_model
        else zoo_presets.find_preset(algo, env, source=preset)
    )
    tuned = tuned.override(hyperparams)
    algorithms.check_hyperparams(algo, tuned.hyperparams)
    wrappers = tuned.wrappers(wrappers)
    description = env_spec.compose_spec(env, kwargs=env_kwargs, wrappers=wrappers)
    if from_model and not (env_kwargs or wrappers):
        description = finetune.base_env_spec(from_model, description)
    with env_spec.make_from_spec(description) as made:
        algorithms.check(algo, tuned.hyperparams, made)
        resolved = algorithms.resolve(algo, tuned.hyperparams, made.observation_space)
    before = None
    if from_model:
        before = finetune.load_base_agent(
            from_model, algo, description, tuned.hyperparams, seed=loop.learning_seed(seed)
        )
        resolved = algorithms.plain_hyperparams(algo, before.model)
        from_model = integrity.pin_version_uri(from_model)
    steps = timesteps or tuned.timesteps or zoo_presets.DEFAULT_TIMESTEPS
    recipe = TrainingConfig(
        env=env,
        algo=algo,
        timesteps=steps,
        seed=seed,
        hyperparams=tuned.hyperparams,
        env_kwargs=env_kwargs,
        wrappers=wrappers,
        from_model=from_model,
        from_model_id=before.model_id or "" if before else "",
        torch_threads=torch_threads,
        preset=tuned.origin,
        description=description,
        resolved=resolved,
    )
    return recipe, before
