from __future__ import annotations

from typing import Any

import gymnasium
import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import wrapper_config
from tests.environments import ScaleObservation

SCALE_OBSERVATION = "tests.environments:ScaleObservation"


def test_a_cause_without_a_message_is_named_by_its_type() -> None:
    assert wrapper_config.format_cause(AssertionError()) == "AssertionError."
    assert wrapper_config.format_cause(ValueError("no such level. ")) == "no such level."


def test_a_wrapper_is_imported_with_its_arguments() -> None:
    wrapper = wrapper_config.import_wrapper({SCALE_OBSERVATION: {"factor": 0.5}})

    env = wrapper.wrap(gymnasium.make("CartPole-v1"))

    assert isinstance(env, ScaleObservation)
    assert env.factor == 0.5


def test_the_notation_of_rl_zoo3_is_accepted() -> None:
    wrapper = wrapper_config.import_wrapper("gymnasium.wrappers.TimeAwareObservation")

    assert wrapper.entry_point == "gymnasium.wrappers:TimeAwareObservation"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "nowhere:Nothing",
            "wrapper nowhere:Nothing cannot be imported: No module named 'nowhere'. Use 'module",
        ),
        (
            "tests.environments:Nothing",
            "wrapper tests.environments:Nothing cannot be imported: module .* has no attribute",
        ),
        ("Nothing", '"Nothing" is no wrapper in JSON notation. Use "module:Class" or'),
        (7, '7 is no wrapper in JSON notation. Use "module:Class"'),
        (
            {SCALE_OBSERVATION: 2},
            'is no wrapper in JSON notation. Use "module:Class" or',
        ),
        ({"a:A": {}, "b:B": {}}, "is no wrapper in JSON notation"),
        (
            "tests.environments:OneStep",
            "tests.environments:OneStep is neither a gymnasium.Wrapper nor a function. Derive",
        ),
        ("math:pi", "math:pi is neither a gymnasium.Wrapper nor a function"),
        (
            "copy:deepcopy",
            "copy:deepcopy has 'x' as its first parameter, .* passes the environment as 'env'",
        ),
        (
            "tests.environments:MisnamedArgument",
            "MisnamedArgument has 'game' as its first parameter, .* Rename the parameter to env",
        ),
        (
            {SCALE_OBSERVATION: {"factr": 2}},
            'does not accept the arguments {"factr": 2}: .* The wrapper has the arguments: factor',
        ),
        (
            "gymnasium.wrappers:ResizeObservation",
            "ResizeObservation does not accept the arguments {}: missing a required argument",
        ),
        (
            "gymnasium.wrappers:GrayscaleObservation",
            "wrapper gymnasium.wrappers:GrayscaleObservation cannot wrap .*CartPole-v1",
        ),
        ("tests.environments:no_environment", "returns NoneType, which is no gymnasium.Env"),
    ],
)
def test_an_invalid_wrapper_is_rejected_with_a_remedy(config: Any, message: str) -> None:
    env = gymnasium.make("CartPole-v1")

    with pytest.raises(MlflowException, match=message):
        wrapper_config.import_wrapper(config).wrap(env)
