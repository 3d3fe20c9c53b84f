"""What every policy offers."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from mlflow_sb3.inference.policy_inputs import LstmState


class Policy(Protocol):
    """What plays: an ``OnnxPolicy``, or SB3's own policy as a ``NativePolicy``."""

    @property
    def takes_masks(self) -> bool:
        """Whether ``predict`` needs ``action_masks``."""
        raise NotImplementedError

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """A batch of observations and the state of the last call in, actions of shape ``(n, *action_shape)`` and the next state out."""
        raise NotImplementedError
