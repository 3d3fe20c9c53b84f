"""Share an error probability among all gates of a reign, the time from one promotion to the next.

If each gate uses the same ``alpha`` and enough challengers are tested, one that is not better
eventually passes by chance. Here gate k of a reign gets ``alpha_per_reign * 6 / (pi**2 * k**2)``,
and at least ``MIN_ALPHA``. Without that minimum, the shares add up to at most ``alpha_per_reign``,
which then bounds the probability of any wrong promotion in the reign.
"""

from __future__ import annotations

import json
import math
from typing import Any

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.promotion.gate import MIN_ALPHA
from mlflow_sb3.promotion.record import ErrorBudget, PromotionContext
from mlflow_sb3.registry.lock import hold_lock

_GATES_TAG = "mlflow.sb3.gates.{alias}"
"""Tag of a registered model: champion of the reign, number of gates, and ids of the last gates.

MLflow's pages hide it, because its name begins with ``mlflow.``.
"""
_VISIBLE_GATES_TAG = "mlflow_sb3.gates.{alias}"
"""Name of that tag in earlier releases."""
_MAX_IDS = 300
"""Number of gate ids that fit into a tag. An older gate that is repeated counts as a new one."""


def spend(context: PromotionContext, alpha_per_reign: float, gate_seed: int) -> ErrorBudget:
    """Return the share of a gate, and record the gate in the registry.

    A repeated gate has the same seed. It plays the same episodes, so it gets the same share again.

    Args:
        context: Challenger, champion and alias of the promotion.
        alpha_per_reign: Error probability of the reign.
        gate_seed: Seed that the gate would have if its ``alpha`` were ``alpha_per_reign``. It
            identifies the gate, because it does not depend on the share.
    """
    name, alias = context.challenger.name, context.alias
    champion = None if context.champion is None else context.champion.model_id
    gate_id = f"{gate_seed:016x}"[:8]
    with hold_lock(name) as lock:
        gates = _read_gates(name, alias, champion)
        if gate_id not in gates["ids"]:
            gates["count"] += 1
            gates["ids"] = [*gates["ids"], gate_id][-_MAX_IDS:]
            lock.check()
            RegistryClient().set_registered_model_tag(
                name, _GATES_TAG.format(alias=alias), json.dumps(gates)
            )
    last = len(gates["ids"]) - 1
    position = gates["count"] - (last - gates["ids"].index(gate_id))
    return ErrorBudget(alpha_per_reign, position, compute_share(alpha_per_reign, position))


def compute_share(alpha_per_reign: float, position: int) -> float:
    """Return the ``alpha`` of a gate, at least ``MIN_ALPHA``.

    Args:
        alpha_per_reign: Error probability of the reign.
        position: Position of the gate in the reign, from 1.
    """
    return max(alpha_per_reign * 6 / (math.pi * position) ** 2, MIN_ALPHA)


def _read_gates(name: str, alias: str, champion: str | None) -> dict[str, Any]:
    """Return the gates of the current reign. A new champion starts without gates."""
    tags = RegistryClient().get_registered_model(name).tags
    older = tags.get(_VISIBLE_GATES_TAG.format(alias=alias), "{}")
    gates: dict[str, Any] = json.loads(tags.get(_GATES_TAG.format(alias=alias), older))
    if gates.get("champion", "") == champion:
        return gates
    return {"champion": champion, "count": 0, "ids": []}
