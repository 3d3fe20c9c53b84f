from __future__ import annotations

import pytest

from mlflow_sb3.client.suggestion import suggest


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pp0", " Did you mean 'ppo'?"), ("PPO", " Did you mean 'ppo'?"), ("zebra", ""), ("", "")],
)
def test_the_most_similar_name_is_suggested(name: str, expected: str) -> None:
    assert suggest(name, ["ppo", "ppo_lstm", "sac"]) == expected
