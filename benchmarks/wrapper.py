"""What people write where there is no flavor."""

from __future__ import annotations

from typing import Any

from mlflow.pyfunc.model import PythonModel
from stable_baselines3 import DQN


class PlainWrapper(PythonModel):
    """What people write where there is no flavor."""

    def load_context(self, context: Any) -> None:
        """Unpickle the agent."""
        self.model = DQN.load(context.artifacts["agent"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG002 MLflow reads hints
        """Ask SB3."""
        return self.model.predict(model_input, deterministic=True)[0]
