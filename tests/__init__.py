"""Tests, with one folder for each package of ``mlflow_sb3``."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Folder of the project."""
