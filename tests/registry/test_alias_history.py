from __future__ import annotations

import pytest
from mlflow import MlflowClient

from mlflow_sb3.registry import alias_history


@pytest.mark.usefixtures("store")
def test_as_many_former_champions_are_looked_for_as_a_promotion_has_calls_for() -> None:
    client = MlflowClient()
    client.create_registered_model("agent")
    numbers = [
        int(client.create_model_version("agent", "file:///nowhere").version)
        for _ in range(alias_history.MAX_LOOKUPS + 1)
    ]
    oldest, second, *rest = numbers
    for number in rest:
        client.delete_model_version("agent", str(number))

    assert alias_history.find_last_existing_version("agent", numbers) == second
    assert alias_history.find_last_existing_version("agent", [*numbers, *rest]) == second
    client.delete_model_version("agent", str(second))
    assert alias_history.find_last_existing_version("agent", numbers) is None
    assert alias_history.find_last_existing_version("agent", [second, oldest]) == oldest
