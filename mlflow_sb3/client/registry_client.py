"""Read a registered model without reading all of its versions."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel


class RegistryClient(MlflowClient):
    """``MlflowClient`` that searches for a registered model instead of getting it.

    MLflow's server (3.17) reads every version of a registered model to get it by name.
    A search reads only the latest version of every stage and returns the same object.
    ``MlflowClient`` also gets the registered model before each change of it, to check that it is no
    entry of MLflow's prompt registry.
    """

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Get a registered model by its name.

        Raises:
            MlflowException: The model does not exist, or the user may not read it.
        """
        models: list[RegisteredModel] = self.search_registered_models(
            build_name_filter(name), max_results=1
        )
        if models and models[0].name == name:
            return models[0]
        # The search hides a missing permission. MLflow's own method raises the error for it.
        return super().get_registered_model(name)


def build_name_filter(name: str) -> str:
    """Return a filter string for one name, to search registered models or model versions."""
    quote = '"' if "'" in name else "'"
    return f"name={quote}{name}{quote}"
