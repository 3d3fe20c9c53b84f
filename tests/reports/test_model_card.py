from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from mlflow_sb3.inference.policy_inputs import PolicyInputs, SpaceInfo
from mlflow_sb3.reports.card_facts import CardFacts, CardReturns, CardTraining
from mlflow_sb3.reports.model_card import ModelCard
from tests.reports.cards import BOX, FULL_FACTS, build_agent, build_card

SECTIONS = [
    "Returns",
    "Use",
    "Environment",
    "Training",
    "Known limits",
    "Packages",
    "Hyperparameters",
]
NO_RETURNS = CardFacts(FULL_FACTS.training)


def read_sections(card: ModelCard) -> dict[str, str]:
    """Return the text of each section by its title."""
    _, *parts = card.to_markdown().split("\n\n## ")
    return dict(part.split("\n\n", 1) for part in parts)


def read_rows(card: ModelCard, section: str) -> dict[str, str]:
    """Return the values of the table in a section by their names."""
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", read_sections(card)[section], re.MULTILINE)
    return dict(rows[2:])


def with_training(**changes: Any) -> CardFacts:
    return replace(FULL_FACTS, training=replace(FULL_FACTS.training, **changes))


def with_returns(**changes: Any) -> CardFacts:
    assert FULL_FACTS.returns is not None
    return replace(FULL_FACTS, returns=replace(FULL_FACTS.returns, **changes))


def test_the_sections_are_in_the_order_of_their_importance() -> None:
    assert list(read_sections(build_card())) == SECTIONS


def test_the_card_says_what_the_model_is() -> None:
    text = build_card().to_markdown()

    assert text.startswith(
        "# DQN agent for Race-v1\n\nA policy that DQN trained in 20,000 environment steps. It "
        "chooses an action for each observation. onnxruntime runs it.\n\n## "
    )
    assert "Stable-Baselines3 runs it." in build_card(inference="native").to_markdown()


def test_the_title_names_no_unknown_environment() -> None:
    assert build_card(environment=None).title == "DQN agent"


@pytest.mark.parametrize(
    ("section", "row", "value"),
    [
        ("Returns", "mean return", "12.50"),
        ("Returns", "95 % interval of the mean, by Student's t", "12.11 to 12.89"),
        ("Returns", "standard deviation", "3.25"),
        ("Returns", "mean of the worst 5 % of returns", "-1.50"),
        ("Returns", "episodes", "270"),
        ("Returns", "seeds", '`generate_episode_seeds(7, "choice", 270, start=10)`'),
        ("Environment", "id", "`Race-v1`"),
        ("Environment", "arguments", '`{"track": "ice"}`'),
        (
            "Environment",
            "wrappers",
            '`mlflow_sb3.wrappers:FrameStack {"n_stack": 4}`, `race:Sticky`',
        ),
        ("Environment", "steps per episode", "at most 500"),
        ("Environment", "reward threshold", "90.5"),
        ("Environment", "observation space", "`Box(-1.0, 1.0, (3,), float32)`"),
        ("Environment", "action space", "`Discrete(2)`"),
        ("Training", "algorithm", "`stable_baselines3.dqn.dqn.DQN`"),
        ("Training", "environment steps", "20,000"),
        ("Training", "kept checkpoint", "step 18,000"),
        ("Training", "seed", "7"),
        ("Training", "source of the hyperparameters", "rl_zoo3/hyperparams/dqn.yml#Race-v1"),
        ("Training", "time", "3 min 20 s"),
        ("Training", "hardware", "Fast CPU, 2 threads of PyTorch"),
        ("Training", "Python", "3.13.1"),
        ("Training", "commit", "`c0ffee`"),
        ("Training", "MLflow run", "`9a9a`"),
        ("Training", "base model", "`models:/race/2`"),
        ("Packages", "mlflow", "3.17.2"),
        ("Packages", "Stable-Baselines3", "2.9.2"),
        ("Hyperparameters", "`learning_rate`", "`0.001`"),
    ],
)
def test_the_card_has_each_fact(section: str, row: str, value: str) -> None:
    assert read_rows(build_card(), section)[row] == value


@pytest.mark.parametrize(
    ("facts", "section", "row"),
    [
        (with_returns(interval=None), "Returns", "95 % interval of the mean, by Student's t"),
        (with_returns(seeds=None), "Returns", "seeds"),
        (with_training(timesteps=None), "Training", "environment steps"),
        (with_training(kept_step=None), "Training", "kept checkpoint"),
        (with_training(seed=None), "Training", "seed"),
        (with_training(preset=None), "Training", "source of the hyperparameters"),
        (with_training(seconds=None), "Training", "time"),
        (with_training(processor=None), "Training", "hardware"),
        (with_training(python=None), "Training", "Python"),
        (with_training(commit=None), "Training", "commit"),
        (with_training(run_id=None), "Training", "MLflow run"),
        (with_training(base_model=None), "Training", "base model"),
    ],
)
def test_a_missing_fact_has_no_row(facts: CardFacts, section: str, row: str) -> None:
    known = read_rows(build_card(), section)

    assert read_rows(build_card(facts), section) == {
        name: value for name, value in known.items() if name != row
    }


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("kwargs", "arguments"),
        ("additional_wrappers", "wrappers"),
        ("max_episode_steps", "steps per episode"),
        ("reward_threshold", "reward threshold"),
    ],
)
def test_a_missing_part_of_the_environment_has_no_row(key: str, row: str) -> None:
    environment = build_agent().environment
    assert environment is not None
    known = read_rows(build_card(), "Environment")

    found = read_rows(build_card(environment={**environment, key: None}), "Environment")

    assert found == {name: value for name, value in known.items() if name != row}


def test_without_facts_the_card_has_only_what_the_files_of_the_model_say() -> None:
    card = build_card(CardFacts(), environment=None, parity=None, versions={})

    assert list(read_sections(card)) == ["Use", "Environment", "Training", "Known limits"]
    assert set(read_rows(card, "Environment")) == {"observation space", "action space"}
    assert set(read_rows(card, "Training")) == {"algorithm"}
    assert "None" not in card.to_markdown()
    assert "A policy that DQN trained. It" in card.to_markdown()


@pytest.mark.parametrize("name", [field.name for field in fields(CardTraining)])
def test_every_fact_about_the_training_is_shown(name: str) -> None:
    others = {"has_changes": True, "inexact": "no RNG state", "resumed_at": 5_000}

    changed = build_card(with_training(**{name: others.get(name)}))

    assert changed.to_markdown() != build_card().to_markdown()


@pytest.mark.parametrize("name", [field.name for field in fields(CardReturns)])
def test_every_fact_about_the_returns_is_shown(name: str) -> None:
    others = {"interval": (0.0, 1.0), "seeds": "[3]"}

    changed = build_card(with_returns(**{name: others.get(name, 1)}))

    assert changed.to_markdown() != build_card().to_markdown()


def test_the_card_says_that_the_best_of_several_checkpoints_had_luck() -> None:
    several = read_sections(build_card())["Returns"]
    single = read_sections(build_card(with_returns(competitors=1)))["Returns"]

    assert "best of 8 in these episodes" in several
    assert "biased upward" in several
    assert "biased" not in single
    assert "did not influence which checkpoint was kept" in single


def test_the_time_of_a_resumed_run_is_not_that_of_the_whole_training() -> None:
    rows = read_rows(build_card(with_training(resumed_at=5_000)), "Training")

    assert rows["time"] == "3 min 20 s since the training was resumed at step 5,000"


def test_the_learning_curve_is_shown_if_it_exists() -> None:
    picture = "![Learning curve](learning_curve.png)"

    assert picture in read_sections(build_card())["Training"]
    assert picture not in build_card(replace(FULL_FACTS, learning_curve=None)).to_markdown()


def test_a_space_with_many_bounds_is_shown_by_its_shape() -> None:
    space = SpaceInfo(f"Box([{'0. ' * 100}], 1.0, (100,), float32)", (100,), "float32")
    rows = read_rows(build_card(observation_space=space), "Environment")

    assert rows["observation space"] == "`shape (100) or (n, 100), dtype float32`"


def test_text_of_users_cannot_add_html_or_columns() -> None:
    environment = {"id": "<img src=x>|a`b", "kwargs": {"a": "<b>"}}
    text = build_card(with_training(processor="<script>|"), environment=environment).to_markdown()

    assert "# DQN agent for &lt;img src=x>" in text
    assert r"&lt;script>\|, 2 threads" in text
    assert r"| id | `<img src=x>\|a'b` |" in text


@pytest.mark.parametrize(
    ("card", "limit"),
    [
        (build_card(), "The returns hold for the environment and the packages of this card."),
        (build_card(), "on 512 observations. The largest difference is 1.5e-07."),
        (build_card(environment=None), "`evaluate` and `promote` cannot play episodes."),
        (build_card(with_training(has_changes=True)), "changes that the commit does not contain"),
        (build_card(with_training(inexact="no RNG")), "from an uninterrupted one: no RNG."),
        (build_card(inputs=PolicyInputs(BOX, (1, 8))), "pass the last LSTM state"),
        (build_card(inputs=PolicyInputs(BOX, None, (2, 3))), "action masks: 5 per observation"),
        (build_card(digests={"vec_normalize.json": "0"}), "send raw observations"),
        (build_card(inference="native"), "unpickles a file"),
    ],
)
def test_the_known_limits_are_those_that_apply(card: ModelCard, limit: str) -> None:
    plain = build_card(NO_RETURNS, parity=None, digests={"agent.zip": "0"})

    assert limit in read_sections(card)["Known limits"]
    assert "Known limits" not in read_sections(plain)
