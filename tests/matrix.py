"""Mark the cases of a parametrized test that only ``make test-all`` runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mark_cases(cases: Iterable[str], default: Collection[str]) -> list[Any]:
    """Return parameters for ``pytest.mark.parametrize`` or ``pytest.fixture``.

    Args:
        cases: Names of all cases, which are also the ids of the tests.
        default: Names of the cases of the default run. All others have the marker ``matrix``.
    """
    return [
        pytest.param(case, id=case, marks=() if case in default else pytest.mark.matrix)
        for case in cases
    ]
