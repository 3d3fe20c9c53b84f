"""MLflow's client for registered models of which there may be thousands of versions."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel


class RegistryClient(MlflowClient):
    """Asks for a registered model as MLflow's client does, before every change too, but not for all of its versions.

    For one registered model by its name, MLflow's server (3.17) reads every version of it; for a search it does not.
    """

    def get_registered_model(self, name: str) -> RegisteredModel:
        """See MLflow's; what cannot be found by a search is asked for in MLflow's way, which says why."""
        found: list[RegisteredModel] = self.search_registered_models(
            name_filter(name), max_results=1
        )
        return found[0] if found and found[0].name == name else super().get_registered_model(name)


def name_filter(name: str) -> str:
    """MLflow's filter for the versions of a registered model."""
    quote = '"' if "'" in name else "'"
    return f"name={quote}{name}{quote}"
