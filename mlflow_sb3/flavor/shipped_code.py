"""List and copy the modules that a logged model carries in its folder ``code``.

Every file of a model costs an HTTP request when the model is downloaded. A model therefore carries
only the modules that load and run its policy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mlflow_sb3.inference.agent_files import InferenceBackend

_PACKAGE = Path(__file__).parents[1]
_LOADER = ("__init__.py", "flavor/__init__.py", "flavor/policy_loader.py")
_ONNX = ("inference/action_sampling.py", "inference/onnx_policy.py")
"""Modules that a policy with ``inference="native"`` does not need."""
_NATIVE = (
    "envs/__init__.py",
    "envs/spaces.py",
    "flavor/sb3_policy.py",
    "flavor/vec_normalize.py",
    "wrappers.py",
)
"""More modules that a policy with ``inference="native"`` needs."""


def list_shipped_files(inference: InferenceBackend) -> list[str]:
    """Return the files of the package that a model carries, relative to the package."""
    modules = (_PACKAGE / "inference").glob("*.py")
    files = [*_LOADER, *(path.relative_to(_PACKAGE).as_posix() for path in modules)]
    if inference == "onnx":
        return sorted(files)
    return sorted({*files, *_NATIVE} - {*_ONNX})


def copy_package(folder: Path, inference: InferenceBackend) -> Path:
    """Copy the files of the package that a model carries.

    Args:
        folder: Existing folder.
        inference: Inference backend of the model.

    Returns:
        The new folder ``mlflow_sb3`` in ``folder``.
    """
    package = folder / _PACKAGE.name
    for name in list_shipped_files(inference):
        target = package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_PACKAGE / name, target)
    return package
