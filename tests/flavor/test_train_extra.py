from __future__ import annotations

import sys

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.flavor.train_extra import check_train_extra


def test_nothing_is_raised_if_all_packages_are_installed() -> None:
    check_train_extra("log_model")


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)

    with pytest.raises(
        MlflowException, match=r"^log_model needs onnxscript\. Run: pip install 'mlflow-sb3\[train"
    ):
        check_train_extra("log_model")
