"""Show in a model card how to use the model in Python and over HTTP."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from mlflow_sb3.inference.agent_files import InferenceBackend
from mlflow_sb3.inference.policy_inputs import PolicyInputs, SpaceInfo

REQUEST_FILE = "serving_input_example.json"
"""File of a model with a request, written by MLflow."""
_MAX_REQUEST_LENGTH = 300
"""Largest number of characters of a request that is shown."""


@dataclass(frozen=True)
class CardUsage:
    """The calls that load a model and predict an action."""

    uri: str
    """Model URI, or the path of a saved model."""
    inputs: PolicyInputs
    inference: InferenceBackend
    request: str | None = None
    """Request to the model server as JSON in one line. None if no example is known."""

    def to_markdown(self) -> str:
        """Return the calls as code blocks."""
        python = f"```python\n{self.format_python()}\n```"
        if self.request is None:
            return python
        return f"{python}\n\n```bash\n{self.format_curl()}\n```"

    def format_python(self) -> str:
        """Return Python code that predicts the action for an observation of zeros."""
        is_native = self.inference == "native"
        allow_pickle = ", allow_pickle=True" if is_native else ""
        masks, result = "", "action, _"
        if self.inputs.mask_size is not None:
            masks = f", action_masks=np.ones({self.inputs.mask_size}, bool)"
        if self.inputs.state_shape is not None:
            result = "action, state"
        return "\n".join(
            [
                "import mlflow_sb3",
                "import numpy as np",
                f"policy = mlflow_sb3.load_policy({json.dumps(self.uri)}{allow_pickle})",
                f"observation = {_format_observation(self.inputs.space)}",
                f"{result} = policy.predict(observation{masks})",
            ]
        )

    def format_curl(self) -> str:
        """Return the shell commands that start a model server and send a request."""
        request = f"'{self.request}'"
        if self.request is None or len(self.request) > _MAX_REQUEST_LENGTH or "'" in self.request:
            request = f"@{REQUEST_FILE}  # a file of the model"
        variable = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=true "
        prefix = variable if self.inference == "native" else ""
        return (
            f"{prefix}mlflow models serve -m {shlex.quote(self.uri)} -p 5001 --env-manager uv\n"
            "curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\\n"
            f"  -d {request}"
        )


def _format_observation(space: SpaceInfo) -> str:
    """Return a Python expression of the smallest integers, or of zeros for a Box."""
    if space.spaces is not None:
        items = (f"{key!r}: {_format_observation(inner)}" for key, inner in space.spaces.items())
        return f"{{{', '.join(items)}}}"
    if space.low is None or space.low == 0:
        return f'np.zeros({space.shape}, "{space.dtype}")'
    return f'np.full({space.shape}, {space.low}, "{space.dtype}")'
