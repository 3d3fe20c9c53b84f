"""Find the class names in hyperparameters, without importing PyTorch."""

from __future__ import annotations

from typing import Any

_SUFFIXES = ("_fn", "_class")
"""Endings of the hyperparameters whose value is a class name, such as ``activation_fn``."""


def is_class_name(key: str, value: Any) -> bool:
    """Return whether the value of a hyperparameter is a class name."""
    return isinstance(value, str) and key.endswith(_SUFFIXES)


def list_class_names(hyperparams: dict[str, Any]) -> list[str]:
    """Return the class names in hyperparameters, in nested dicts too."""
    names: list[str] = []
    for key, value in hyperparams.items():
        if isinstance(value, dict):
            names += list_class_names(value)
        elif is_class_name(key, value):
            names.append(value)
    return names
