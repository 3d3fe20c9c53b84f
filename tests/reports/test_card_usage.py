from __future__ import annotations

import pytest

from mlflow_sb3.inference.agent_files import InferenceBackend
from mlflow_sb3.inference.policy_inputs import PolicyInputs, SpaceInfo
from mlflow_sb3.reports.card_usage import CardUsage
from tests.reports.cards import BOX, INPUTS

REQUEST = '{"inputs": [[0.0, 0.5, 1.0]]}'


def build(
    inputs: PolicyInputs = INPUTS,
    inference: InferenceBackend = "onnx",
    request: str | None = REQUEST,
) -> CardUsage:
    return CardUsage("models:/race/3", inputs, inference, request)


def test_the_python_code_has_five_lines() -> None:
    assert build().format_python().splitlines() == [
        "import mlflow_sb3",
        "import numpy as np",
        'policy = mlflow_sb3.load_policy("models:/race/3")',
        'observation = np.zeros((3,), "float32")',
        "action, _ = policy.predict(observation)",
    ]


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        (PolicyInputs(BOX, (1, 8)), "action, state = policy.predict(observation)"),
        (
            PolicyInputs(BOX, None, (2, 3)),
            "action, _ = policy.predict(observation, action_masks=np.ones(5, bool))",
        ),
        (
            PolicyInputs(SpaceInfo("Discrete", (), "int64", 3, 5)),
            'observation = np.full((), 3, "int64")',
        ),
        (
            PolicyInputs(SpaceInfo("MultiDiscrete", (2,), "int64", [1, 2], [3, 4])),
            'observation = np.full((2,), [1, 2], "int64")',
        ),
        (
            PolicyInputs(SpaceInfo("Dict", spaces={"a": BOX})),
            "observation = {'a': np.zeros((3,), \"float32\")}",
        ),
    ],
)
def test_the_python_code_fits_the_inputs_of_the_policy(inputs: PolicyInputs, line: str) -> None:
    assert line in build(inputs).format_python().splitlines()


def test_unpickling_must_be_allowed_for_native_inference() -> None:
    text = build(inference="native").to_markdown()

    assert '"models:/race/3", allow_pickle=True)' in text
    assert "\nMLFLOW_ALLOW_PICKLE_DESERIALIZATION=true mlflow models serve" in text


def test_the_server_gets_the_example() -> None:
    assert build().format_curl().splitlines() == [
        "mlflow models serve -m models:/race/3 -p 5001 --env-manager uv",
        "curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\",
        f"  -d '{REQUEST}'",
    ]


@pytest.mark.parametrize("request_json", ['{"inputs": "' + "0" * 300 + '"}', '{"it\'s": 0}'])
def test_a_request_that_is_long_or_has_quotes_is_read_from_its_file(request_json: str) -> None:
    curl = build(request=request_json).format_curl()

    assert curl.endswith("\\\n  -d @serving_input_example.json  # a file of the model")


def test_without_an_example_there_is_no_request() -> None:
    assert "curl" not in build(request=None).to_markdown()
