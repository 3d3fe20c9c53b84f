"""Contract of the private names that ``torch_internals`` uses. They exist in torch 2.9 to 2.13."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch.distributions import Distribution, Normal

from mlflow_sb3.flavor import torch_internals


def test_distributions_are_validated_by_default() -> None:
    assert torch_internals.has_validated_distributions()


def test_the_argument_checks_are_off_inside_the_context_only() -> None:
    with torch_internals.unvalidated_distributions():
        Normal(torch.zeros(1), -torch.ones(1))

    with pytest.raises(ValueError, match="to satisfy the constraint"):
        Normal(torch.zeros(1), -torch.ones(1))


def test_checks_that_were_off_stay_off() -> None:
    Distribution.set_default_validate_args(False)
    try:
        with torch_internals.unvalidated_distributions():
            pass

        assert not torch_internals.has_validated_distributions()
    finally:
        Distribution.set_default_validate_args(True)


@pytest.mark.parametrize("name", torch_internals.EXPORT_LOGGERS)
def test_every_export_logger_belongs_to_a_module_of_torch(name: str) -> None:
    assert importlib.util.find_spec(name) is not None
