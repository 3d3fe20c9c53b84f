"""Access the private names of PyTorch that this package needs.

No other module uses an underscored name of PyTorch. All names exist in torch 2.9 to 2.13.
``tests/flavor/test_torch_internals.py`` checks them for the installed version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributions import Distribution

EXPORT_LOGGERS = (
    "torch.onnx",
    "torch.export",
    "torch._export",
    "torch._dynamo",
    "torch.fx.experimental.symbolic_shapes",
)
"""Loggers that print messages during ``torch.onnx.export``."""


def has_validated_distributions() -> bool:
    """Return whether ``torch.distributions`` checks its arguments by default."""
    return bool(Distribution._validate_args)


@contextmanager
def unvalidated_distributions() -> Iterator[None]:
    """Switch off the argument checks of ``torch.distributions``.

    The checks branch on the values of tensors. ``torch.export`` cannot export such branches.
    """
    was_validated = has_validated_distributions()
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(was_validated)
