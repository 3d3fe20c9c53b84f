from __future__ import annotations

import pytest
from mlflow import MlflowClient

from mlflow_sb3 import reigns


@pytest.mark.usefixtures("store")
def test_as_many_former_champions_are_looked_for_as_a_promotion_has_calls_for() -> None:
    client = MlflowClient()
    client.create_registered_model("agent")
    numbers = [int(client.create_model_version("agent", "file:///nowhere").version) for _ in range(reigns.LOOKED_FOR + 1)]
    oldest, second, *rest = numbers
    for number in rest:
        client.delete_model_version("agent", str(number))

    assert reigns.last_of("agent", numbers) == second
    assert reigns.last_of("agent", [*numbers, *rest]) == second
    client.delete_model_version("agent", str(second))
    assert reigns.last_of("agent", numbers) is None
    assert reigns.last_of("agent", [second, oldest]) == oldest
