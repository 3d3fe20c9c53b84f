"""A pyfunc wrapper around SB3, as users write it without a flavor."""

from __future__ import annotations

from typing import Any

from mlflow.pyfunc.model import PythonModel
from stable_baselines3 import DQN


class PlainWrapper(PythonModel):
    """Wrapper that loads SB3's file and calls SB3's ``predict``."""

    def load_context(self, context: Any) -> None:
        """Load the agent, which unpickles it."""
        self.model = DQN.load(context.artifacts["agent"])

    # Without type hints, because MLflow would read them as the model's signature.
    def predict(self, context, model_input, params=None):  # type: ignore  # noqa
        """Return the deterministic actions of SB3."""
        return self.model.predict(model_input, deterministic=True)[0]
