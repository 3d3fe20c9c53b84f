"""List the known limits of a model for its card."""

from __future__ import annotations

from mlflow_sb3.inference.agent_files import VEC_NORMALIZE_JSON, AgentInfo
from mlflow_sb3.inference.policy_inputs import PolicyInputs
from mlflow_sb3.reports.card_facts import CardFacts
from mlflow_sb3.reports.markdown import format_text


def list_limits(agent: AgentInfo, inputs: PolicyInputs, facts: CardFacts) -> list[str]:
    """Return what a user of the model should know, in sentences.

    Args:
        agent: Content of ``agent.json``.
        inputs: Inputs of the policy.
        facts: Facts about the training.
    """
    return [*_list_limits_of_figures(agent, facts), *_list_limits_of_use(agent, inputs)]


def _list_limits_of_figures(agent: AgentInfo, facts: CardFacts) -> list[str]:
    training, limits = facts.training, []
    if facts.returns is not None:
        limits.append("The returns hold for the environment and the packages of this card.")
    if agent.environment is None:
        limits.append(
            "The training environment is not known: `evaluate` and `promote` cannot play episodes."
        )
    if agent.parity is not None:
        limits.append(
            f"The ONNX graph was compared with Stable-Baselines3 on {agent.parity.observations} "
            f"observations. The largest difference is {agent.parity.max_difference:.2g}."
        )
    if training.has_changes:
        limits.append("The training code had changes that the commit does not contain.")
    if training.inexact is not None:
        limits.append(
            "The training was interrupted, and may differ from an uninterrupted one: "
            f"{format_text(training.inexact)}."
        )
    return limits


def _list_limits_of_use(agent: AgentInfo, inputs: PolicyInputs) -> list[str]:
    limits = []
    if inputs.state_shape is not None:
        limits.append("The policy has a memory: pass the last LSTM state with each request.")
    if inputs.mask_size is not None:
        limits.append(f"Each request needs action masks: {inputs.mask_size} per observation.")
    if VEC_NORMALIZE_JSON in agent.digests:
        limits.append("The statistics of VecNormalize are in the model: send raw observations.")
    if agent.inference == "native":
        limits.append("Loading the model unpickles a file, which can run any code.")
    return limits
