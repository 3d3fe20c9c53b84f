"""Measure the norms of gradients while an algorithm learns."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch.optim import Optimizer

PREFIX = "gradient_norm/"
"""Prefix of the metrics."""


class GradientNorms:
    """Record the L2 norm of the gradient of each optimizer with SB3's logger.

    The norm is measured before each step of an optimizer, so after SB3 has clipped the gradient.
    SB3's logger averages the norms until it logs its metrics.
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        """Start to measure the optimizers of a model."""
        self._model = model
        self._hooks = [
            optimizer.register_step_pre_hook(self._make_hook(name))
            for name, optimizer in _find_optimizers(model).items()
        ]

    def remove(self) -> None:
        """Stop to measure."""
        for hook in self._hooks:
            hook.remove()

    def _make_hook(self, name: str) -> Any:
        def record(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
            gradients = [
                parameter.grad
                for group in optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            if gradients:
                norm = torch.nn.utils.get_total_norm(gradients)
                self._model.logger.record_mean(f"{PREFIX}{name}", float(norm))

        return record


def _find_optimizers(model: BaseAlgorithm) -> dict[str, Optimizer]:
    """Return the optimizers by the names of their networks, such as ``"actor"``."""
    found = {name: attrgetter(name)(model) for name in model.get_parameters()}
    return {
        name.removesuffix("optimizer").rstrip("._"): value
        for name, value in found.items()
        if isinstance(value, Optimizer)
    }
