from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlflow_sb3.inference import batching

OBSERVATIONS = [np.arange(2) + step for step in range(3)]
DICT_OBSERVATIONS = [{"a": values, "b": values * 2} for values in OBSERVATIONS]


@pytest.mark.parametrize("observations", [OBSERVATIONS, DICT_OBSERVATIONS], ids=["array", "dict"])
def test_a_split_batch_can_be_joined_again(observations: Any) -> None:
    batch = batching.stack_observations(observations)
    parts = [batching.take_rows(batch, slice(0, 1)), batching.take_rows(batch, slice(1, 3))]

    joined = batching.concatenate(parts)

    assert [batching.get_batch_size(part) for part in (*parts, joined)] == [1, 2, 3]
    np.testing.assert_equal(joined, batch)
