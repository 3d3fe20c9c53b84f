"""Build model cards of an invented agent."""

from __future__ import annotations

from typing import Any

from mlflow_sb3.inference.agent_files import AgentInfo, Parity
from mlflow_sb3.inference.policy_inputs import PolicyInputs, SpaceInfo
from mlflow_sb3.reports.card_facts import CardFacts, CardReturns, CardTraining
from mlflow_sb3.reports.card_usage import CardUsage
from mlflow_sb3.reports.model_card import ModelCard

BOX = SpaceInfo("Box(-1.0, 1.0, (3,), float32)", (3,), "float32")
DISCRETE = SpaceInfo("Discrete(2)", (), "int64", 0, 1)
INPUTS = PolicyInputs(BOX)
FULL_FACTS = CardFacts(
    CardTraining(
        timesteps=20_000,
        seed=7,
        preset="rl_zoo3/hyperparams/dqn.yml#Race-v1",
        kept_step=18_000,
        seconds=200.0,
        processor="Fast CPU",
        torch_threads=2,
        python="3.13.1",
        commit="c0ffee",
        run_id="9a9a",
        base_model="models:/race/2",
    ),
    CardReturns(
        episodes=270,
        mean=12.5,
        std=3.25,
        worst=-1.5,
        interval=(12.11, 12.89),
        seeds='generate_episode_seeds(7, "choice", 270, start=10)',
        competitors=8,
    ),
    {"learning_rate": "0.001"},
    b"png",
)


def build_agent(**changes: Any) -> AgentInfo:
    values: dict[str, Any] = {
        "algorithm": "stable_baselines3.dqn.dqn.DQN",
        "observation_space": BOX,
        "action_space": DISCRETE,
        "versions": {"mlflow": "3.17.2", "stable_baselines3": "2.9.2"},
        "digests": {},
        "inference": "onnx",
        "environment": {
            "id": "Race-v1",
            "kwargs": {"track": "ice"},
            "max_episode_steps": 500,
            "reward_threshold": 90.5,
            "additional_wrappers": [
                {"entry_point": "mlflow_sb3.wrappers:FrameStack", "kwargs": {"n_stack": 4}},
                {"entry_point": "race:Sticky", "kwargs": {}},
            ],
        },
        "parity": Parity(512, 256, 1.5e-07, 0),
    }
    return AgentInfo(**values | changes)


def build_card(
    facts: CardFacts = FULL_FACTS, *, inputs: PolicyInputs = INPUTS, **changes: Any
) -> ModelCard:
    """Build the card of an agent; ``changes`` replace attributes of ``AgentInfo``."""
    agent = build_agent(**changes)
    usage = CardUsage("models:/m-1", inputs, agent.inference, '{"inputs": [[0.0, 0.5, 1.0]]}')
    return ModelCard(agent, inputs, facts, usage)
