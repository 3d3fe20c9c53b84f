from __future__ import annotations

import pytest
import torch
from mlflow.exceptions import MlflowException
from stable_baselines3.common.torch_layers import FlattenExtractor

from tests.flavor.agents import build_with_extractor, export


class Branching(FlattenExtractor):
    """Branches on the values of a tensor, which cannot be exported."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations if observations.sum() > 0 else -observations


class Bessel(FlattenExtractor):
    """Uses an operator that has no ONNX function."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(torch.special.bessel_j0(observations))


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (
            Branching,
            r"ONNX: Branching, at 'return observations if observations.sum\(\) > .*=native",
        ),
        (
            Bessel,
            r"ONNX: Bessel uses the operator prims.bessel_j0, which has no ONNX .*=native",
        ),
    ],
)
def test_a_failed_export_names_the_module_and_the_operator(
    extractor: type[FlattenExtractor], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MlflowException, match=message):
        export(build_with_extractor(extractor))

    assert capfd.readouterr().err == ""
