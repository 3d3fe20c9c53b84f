"""The steps in this process: what they leave behind, and how they refuse bad input."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import time
from pathlib import Path

import click
import mlflow
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec
from mlflow_sb3.registry import model_version, versions
from mlflow_sb3.runs import heartbeat, signals
from mlflow_sb3.runs.signals import Interrupted
from steps import step
from steps.evaluate import evaluate
from steps.log_model import log_model
from steps.main import main
from steps.promote import promote
from steps.rollback import rollback
from steps.step import Step
from steps.train import train
from tests import ROOT
from tests.conftest import Keys
from tests.project.conftest import Place

TINY = [
    "--algo",
    "ppo",
    "--timesteps",
    "64",
    "--preset",
    "none",
    "--hyperparams",
    '{"n_steps": 64}',
]


def invoke(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def succeed(command: click.Command, *arguments: str) -> Run:
    """Run a step that has to end well, and return its run."""
    result = invoke(command, *arguments)
    assert result.exit_code == 0, result.output
    return last_run()


def last_run() -> Run:
    run = mlflow.last_active_run()
    assert run is not None
    return mlflow.get_run(run.info.run_id)


def artifacts(run: Run, folder: str | None = None) -> set[str]:
    return {file.path for file in MlflowClient().list_artifacts(run.info.run_id, folder)}


@pytest.fixture
def champion(store: str) -> model_version.Version:  # noqa: ARG001 a store to be champion in
    """A tiny agent that went through train, log_model and promote, which it is too bad for without force."""
    trained = succeed(train, *TINY)
    succeed(log_model, "--run-id", trained.info.run_id)
    succeed(
        promote,
        "--model-name",
        "cartpole-v1-ppo",
        "--rule",
        "force",
        "--reason",
        "somebody has to be",
    )
    return versions.find_version("cartpole-v1-ppo", alias="champion")


@pytest.mark.usefixtures("store")
def test_training_leaves_parameters_curves_candidates_and_the_agent() -> None:
    run = succeed(train, *TINY)

    assert run.info.status == "FINISHED"
    assert run.data.params["sb3/n_steps"] == "64"
    assert run.data.params["sb3/learning_rate"] == "0.0003"
    assert {"rollout/ep_rew_mean", "eval/mean_reward", "eval/kept_step"} <= set(run.data.metrics)
    assert artifacts(run, "agent") == {"agent/agent.zip", "agent/environment.json"}
    table = mlflow.load_table("candidates.json", run_ids=[run.info.run_id])
    assert table["kept"].sum() == 1


@pytest.mark.usefixtures("store")
def test_a_preset_is_named_and_overridden_key_by_key() -> None:
    run = succeed(train, "--timesteps", "300", "--hyperparams", '{"batch_size": 32}')

    assert run.data.params["sb3/preset"] == "rl_zoo3/hyperparams/dqn.yml#CartPole-v1"
    assert run.data.params["sb3/batch_size"] == "32"
    assert run.data.params["sb3/target_update_interval"] == "10"


@pytest.mark.usefixtures("store")
def test_the_run_shows_the_environment_and_how_long_it_was_learned_in() -> None:
    steps = '{"n_steps": 64, "n_timesteps": 64, "frame_stack": 2}'
    wrappers = '["rl_zoo3.wrappers:MaskVelocityWrapper"]'

    run = succeed(
        train,
        "--algo",
        "ppo",
        "--hyperparams",
        steps,
        "--env-kwargs",
        '{"max_episode_steps": 20}',
        "--wrappers",
        wrappers,
        "--preset",
        "none",
    )

    assert run.data.params["sb3/timesteps"] == "64"
    assert run.data.params["sb3/preset"] == "stable-baselines3 defaults"
    assert run.data.params["sb3/env_kwargs"] == '{"max_episode_steps": 20}'
    assert json.loads(run.data.params["sb3/wrappers"]) == [
        "rl_zoo3.wrappers:MaskVelocityWrapper",
        {"mlflow_sb3.wrappers:FrameStack": {"n_stack": 2}},
    ]
    description = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/agent/environment.json")
    with env_spec.make_from_spec(description) as env:
        assert env.observation_space.shape == (8,)
        assert env.spec is not None
        assert env.spec.max_episode_steps == 20


def test_the_help_names_every_algorithm() -> None:
    *others, last = algorithms.ALGORITHMS

    assert f"{', '.join(others)} or {last}." == step.ALGORITHMS


@pytest.mark.usefixtures("store")
def test_timesteps_on_the_command_line_win() -> None:
    run = succeed(train, *TINY[:-1], '{"n_steps": 64, "n_timesteps": 1000000}')

    assert run.data.params["sb3/timesteps"] == "64"


def test_the_model_is_logged_into_the_training_run(champion: model_version.Version) -> None:
    logged = mlflow.get_logged_model(champion.model_id)

    assert champion.run_id == logged.source_run_id
    assert logged.params["sb3/algo"] == "ppo"
    assert mlflow.get_run(str(champion.run_id)).data.params["sb3/env"] == "CartPole-v1"


def test_an_equal_agent_does_not_become_champion(champion: model_version.Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    assert versions.find_version("cartpole-v1-ppo", alias="challenger").number == 2

    result = invoke(promote, "--model-name", "cartpole-v1-ppo", "--episodes", "30")

    run = last_run()
    assert result.exit_code == 0
    assert (
        "tie: cartpole-v1-ppo/2 and cartpole-v1-ppo/1 returned the same in each of 30 pairs"
        in result.output
    )
    assert versions.find_version("cartpole-v1-ppo", alias="champion").number == 1
    assert run.data.tags["mlflow_sb3.verdict"] == "tie"
    assert run.data.metrics["promotion/pairs"] == 30
    assert {"promotion.json"} <= artifacts(run)
    assert artifacts(run, "promotion") == {"promotion/episodes.json", "promotion/returns.png"}
    assert mlflow.load_table("promotion/episodes.json", run_ids=[run.info.run_id]).columns.tolist()[
        :2
    ] == ["seed", "challenger_return"]


def test_a_pipeline_may_ask_for_a_failure_where_nothing_is_promoted(
    champion: model_version.Version,
) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))

    result = invoke(
        promote, "--model-name", champion.name, "--episodes", "30", "--fail-on-reject", "true"
    )

    assert_refused(result, 1, "cartpole-v1-ppo/2 did not become the champion of cartpole-v1-ppo")
    assert "tie: cartpole-v1-ppo/2 and cartpole-v1-ppo/1" in result.output


def test_a_promotion_is_played_again(champion: model_version.Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    run = succeed(promote, "--model-name", champion.name, "--episodes", "30")

    result = invoke(promote, "--replay", run.info.run_id)

    assert result.exit_code == 0
    assert f"identical: run {run.info.run_id}" in result.output
    assert_refused(invoke(promote, "--replay", str(champion.run_id)), 1, "holds no promotion.json")


def test_the_best_of_an_experiment_are_the_challengers(champion: model_version.Version) -> None:
    for seed in ("1", "2"):
        trained = succeed(train, *TINY, "--seed", seed)
        succeed(log_model, "--run-id", trained.info.run_id)

    best = succeed(
        promote,
        "--model-name",
        champion.name,
        "--candidates",
        "best",
        "--top",
        "2",
        "--episodes",
        "30",
    )

    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{best.info.run_id}'", output_format="list"
    )
    records = [
        json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/promotion.json"))
        for run in children
    ]
    assert {found["challenger"]["number"] for found in records} == {2, 3}
    assert {found["gate"]["alpha"] for found in records} == {0.025}
    assert best.data.tags["mlflow_sb3.verdict"] in ("promote", "reject", "inconclusive")
    assert all(
        heartbeat.BEAT in run.data.tags for run in children
    )  # by which those of a killed promote are told from the living


def test_a_candidate_that_cannot_be_decided_keeps_no_other_from_playing(
    champion: model_version.Version,
) -> None:
    for seed in ("1", "2"):
        trained = succeed(train, *TINY, "--seed", seed)
        succeed(log_model, "--run-id", trained.info.run_id)
    broken = versions.find_version(champion.name, number=2)
    Path(
        mlflow.get_logged_model(broken.model_id).artifact_location.removeprefix("file://"),
        "MLmodel",
    ).unlink()

    result = invoke(
        promote,
        "--model-name",
        champion.name,
        "--candidates",
        "best",
        "--top",
        "2",
        "--episodes",
        "30",
    )

    runs = mlflow.search_runs(filter_string="tags.mlflow.parentRunId != ''", output_format="list")
    verdicts = {
        run.data.tags["mlflow_sb3.version"]: run.data.tags["mlflow_sb3.verdict"] for run in runs
    }
    assert result.exit_code == 1
    assert f"Error: {broken} could not be decided: {broken} cannot be loaded" in result.stderr
    assert verdicts.pop(str(broken)) == "error"
    assert list(verdicts) == [f"{champion.name}/3"]
    assert verdicts.popitem()[1] != "error"


def test_a_rollback_gives_the_alias_back(champion: model_version.Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    succeed(promote, "--model-name", champion.name, "--rule", "force", "--reason", "a change")

    result = invoke(rollback, "--model-name", champion.name, "--reason", "it fell over")

    assert (
        "rollback: cartpole-v1-ppo/1 is the champion again, in place of cartpole-v1-ppo/2: it fell over."
        in result.output
    )
    assert versions.find_version(champion.name, alias="champion") == champion
    assert_refused(
        invoke(rollback, "--model-name", champion.name),
        1,
        "nobody was champion of cartpole-v1-ppo before version 1",
    )


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--rule", "force"], 2, "--rule force and --reason go together"),
        (["--reason", "because"], 2, "--rule force and --reason go together"),
        (["--candidates", "best", "--version", "1"], 2, "leave --version and --rule force out"),
        (["--candidates", "best", "--experiment", "nowhere"], 2, "'nowhere' does not exist"),
        (["--candidates", "best"], 1, "registered model 'nobody' does not exist"),
        (["--episodes", "1"], 2, "1 is not in the range"),
        (["--min-return", "high"], 2, "'high' is not a valid float"),
        (["--replay", "0" * 32], 1, "not found"),
        (["--alias", "challenger"], 1, "alias 'challenger' is moved by promotions themselves"),
        (
            ["--alias", "previous-champion"],
            1,
            "alias 'previous-champion' is moved by promotions themselves",
        ),
        (["--public-key", "/nowhere.pem"], 1, "/nowhere.pem"),
    ],
)
def test_promotion_refuses_bad_input_in_one_line(
    arguments: list[str], code: int, says: str
) -> None:
    assert_refused(invoke(promote, "--model-name", "nobody", *arguments), code, says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--alpha", "0.7"], "alpha=0.7: give a chance of error"),
        (["--min-improvement", "-1"], "min_improvement=-1.0: give a return of 0 or more"),
        (["--min-return", "nan"], "min_return=nan: give a finite return"),
    ],
)
def test_settings_of_the_gate_that_make_no_sense_are_refused(
    champion: model_version.Version, arguments: list[str], says: str
) -> None:
    assert_refused(
        invoke(promote, "--model-name", champion.name, "--version", "1", *arguments), 2, says
    )


@pytest.mark.usefixtures("store")
def test_what_does_not_exist_cannot_be_rolled_back() -> None:
    assert_refused(
        invoke(rollback, "--model-name", "nobody"), 1, "registered model 'nobody' does not exist"
    )


def test_evaluation_prints_and_logs_the_episodes(champion: model_version.Version) -> None:
    result = invoke(evaluate, "--model-name", champion.name, "--version", "1", "--episodes", "3")

    run = last_run()
    returns = json.loads(result.stdout.partition("Episode returns: ")[2].partition("\n")[0])
    assert f"Mean reward: {sum(returns) / 3:.2f} +/- " in result.stdout
    assert run.data.metrics["evaluation/episodes"] == 3
    assert (
        mlflow.load_table("evaluation/episodes.json", run_ids=[run.info.run_id])["return"].tolist()
        == returns
    )
    assert artifacts(run, "evaluation") == {"evaluation/episodes.json", "evaluation/returns.png"}
    on_model = {
        metric.key: metric.value
        for metric in mlflow.get_logged_model(champion.model_id).metrics or []
    }
    assert on_model["evaluation/mean_return"] == run.data.metrics["evaluation/mean_return"]


@pytest.mark.usefixtures("store")
def test_a_version_is_signed_and_evaluated_with_the_public_key(
    keys: Keys, other_keys: Keys
) -> None:
    trained = succeed(train, *TINY)

    logged = invoke(log_model, "--run-id", trained.info.run_id, "--signing-key", str(keys.private))
    plain = invoke(log_model, "--run-id", trained.info.run_id)

    challenger = ["--model-name", "cartpole-v1-ppo", "--episodes", "1", "--version"]
    assert re.search(
        "Registered cartpole-v1-ppo/1 as the challenger, digest [0-9a-f]{64}, signed\n",
        logged.stdout,
    )
    assert plain.stdout.endswith(", not signed\n")
    succeed(evaluate, *challenger, "1", "--public-key", str(keys.public))
    assert_refused(
        invoke(evaluate, *challenger, "1", "--public-key", str(other_keys.public)),
        1,
        "another key signed it",
    )
    assert_refused(
        invoke(evaluate, *challenger, "2", "--public-key", str(keys.public)),
        1,
        "has no tag mlflow_sb3.signature",
    )
    assert_refused(
        invoke(evaluate, *challenger, "1", "--public-key", "no.pem"),
        1,
        "public key 'no.pem' cannot be read",
    )


@pytest.mark.usefixtures("store")
def test_a_key_that_cannot_sign_is_refused_before_any_work(keys: Keys) -> None:
    nowhere = ["--run-id", "0" * 32]

    assert_refused(
        invoke(log_model, *nowhere, "--signing-key", "no.pem"),
        1,
        "private key 'no.pem' cannot be read",
    )
    assert_refused(
        invoke(log_model, *nowhere, "--signing-key", str(keys.public)),
        1,
        "is a public key; give one that",
    )


def test_evaluation_films_an_episode_when_asked(champion: model_version.Version) -> None:
    run = succeed(evaluate, "--model-name", champion.name, "--episodes", "1", "--video", "true")

    assert "evaluation/episode.mp4" in artifacts(run, "evaluation")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--env", "Nope-v1"], 1, "environment 'Nope-v1' cannot be made"),
        (["--env", "nowhere:Nope-v1"], 1, "No module named 'nowhere'"),
        (["--algo", "alphazero"], 1, "algorithm 'alphazero' is unknown; take one of a2c"),
        (["--algo", "sac", "--preset", "none"], 1, "sac does not fit the action space Discrete(2)"),
        (["--env", "Pendulum-v1"], 1, "dqn does not fit the action space Box"),
        (
            ["--env", "Blackjack-v1"],
            1,
            'no Tuple in it; flatten them, with wrappers=["gymnasium.wrappers:FlattenObservation"]',
        ),
        (["--timesteps", "0"], 2, "'--timesteps': 0 is not in the range"),
        (["--hyperparams", "{bad"], 2, "'{bad' is no JSON"),
        (["--hyperparams", "[1]"], 2, "'[1]' is no JSON object"),
        (["--hyperparams", '{"lerning_rate": 1}'], 1, "dqn has no hyperparameter 'lerning_rate'"),
        (["--hyperparams", '{"learning_rate": "fast"}'], 1, "dqn refuses these hyperparameters"),
        (
            ["--hyperparams", '{"policy": "LinearPolicy"}'],
            1,
            "dqn has no policy 'LinearPolicy'; it has CnnPolicy, MlpPolicy",
        ),
        (
            ["--hyperparams", '{"frame_stack": "four"}'],
            1,
            "n_stack='four': give the number of observations to stack",
        ),
        (
            ["--hyperparams", '{"env_wrapper": "nowhere.Nothing"}'],
            1,
            "wrapper nowhere:Nothing cannot be imported",
        ),
        (["--hyperparams", '{"normalize": "yes"}'], 1, "normalize is 'yes'; give true, false"),
        (
            ["--hyperparams", '{"replay_buffer_class": "HerReplayBuffer"}'],
            1,
            "HerReplayBuffer needs an environment with goals",
        ),
        (
            ["--wrappers", '["nowhere:Nothing"]'],
            1,
            "wrapper nowhere:Nothing cannot be imported: No module named 'nowhere'",
        ),
        (["--wrappers", '["tests.environments:Game"]'], 1, "call its first parameter env"),
        (
            ["--wrappers", '[{"tests.environments:Hidden": {"factr": 1}}]'],
            1,
            "unexpected keyword argument 'factr'; it takes factor",
        ),
        (["--wrappers", "nowhere:Nothing"], 2, "'nowhere:Nothing' is no JSON"),
        (
            ["--wrappers", '{"a:B": {}}'],
            2,
            'is no JSON list; write \'["module:Class", {"module:Class": {"argument": 1}}]\'',
        ),
        (["--env-kwargs", '{"gravity": 1}'], 1, 'cannot be made with {"gravity": 1}'),
        (["--env-kwargs", "[]"], 2, "'[]' is no JSON object"),
        (["--algo", "ppo_mask"], 1, "ppo_mask needs an environment with action_masks()"),
        (
            ["--algo", "ars", "--env", "tests.environments:BitFlipping-v0"],
            1,
            "it has no MultiInputPolicy",
        ),
    ],
)
@pytest.mark.usefixtures("store")
def test_training_refuses_bad_input_in_one_line(arguments: list[str], code: int, says: str) -> None:
    assert_refused(invoke(train, *arguments), code, says)


@pytest.mark.usefixtures("store")
def test_a_run_that_trained_nothing_has_no_model_to_log() -> None:
    with mlflow.start_run() as run:
        pass

    assert_refused(invoke(log_model, "--run-id", run.info.run_id), 1, "trained no agent")
    assert MlflowClient().search_registered_models() == []
    assert mlflow.search_logged_models(output_format="list") == []


@pytest.mark.usefixtures("store")
def test_a_name_that_cannot_be_registered_is_refused_before_any_work() -> None:
    assert_refused(
        invoke(main, "--model-name", "team/agent"),
        1,
        "no registered model can be named 'team/agent'",
    )
    assert_refused(
        invoke(log_model, "--run-id", "0" * 32, "--model-name", "a:b"),
        1,
        "no registered model can be named 'a:b'",
    )
    assert (
        mlflow.search_runs(filter_string="tags.mlflow.parentRunId != ''", output_format="list")
        == []
    )


@pytest.mark.usefixtures("store")
def test_main_does_not_train_what_it_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    assert_refused(invoke(main), 1, "log_model, which reads the agent that train wrote")


@pytest.mark.usefixtures("store")
def test_an_alias_that_cannot_be_set_is_refused_before_the_games() -> None:
    assert_refused(invoke(promote, "--alias", "latest"), 1, "alias 'latest' cannot be set")


@pytest.mark.usefixtures("store")
def test_what_nobody_foresaw_is_one_line_too() -> None:
    @click.command(cls=Step)
    def broken() -> None:
        raise KeyError("missing")

    assert_refused(invoke(broken), 1, "KeyError: 'missing'")
    assert "Traceback" in mlflow.artifacts.load_text(f"{last_run().info.artifact_uri}/error.txt")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "end", [LookupError(), Interrupted(signal.SIGTERM)], ids=["error", "SIGTERM"]
)
def test_what_fails_after_a_run_has_finished_leaves_it_finished(end: BaseException) -> None:
    @click.command(cls=Step)
    @click.pass_context
    def late(context: click.Context) -> None:
        MlflowClient().set_terminated(context.obj)
        raise end

    result = invoke(late)

    assert result.exit_code == (1 if isinstance(end, LookupError) else 143)
    assert last_run().info.status == "FINISHED"
    assert not {"error", signals.INTERRUPTED_TAG} & set(last_run().data.tags)


@pytest.mark.usefixtures("store")
def test_a_step_that_was_told_to_stop_is_killed_though_that_failed() -> None:
    @click.command(cls=Step)
    def stopped() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise ConnectionError("the server is away")

    result = invoke(stopped)

    assert result.exit_code == 143
    assert (last_run().info.status, last_run().data.tags[signals.INTERRUPTED_TAG]) == (
        "KILLED",
        "SIGTERM",
    )
    assert "error" not in last_run().data.tags


@pytest.mark.usefixtures("store")
def test_artifacts_that_are_away_do_not_hide_why_a_step_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = {
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    for name, value in (away | {"AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("away", artifact_location="s3://away")
    )

    @click.command(cls=Step)
    def broken() -> None:
        raise KeyError("missing")

    assert_refused(invoke(broken), 1, "KeyError: 'missing'")


@pytest.mark.process
def test_training_leaves_a_silent_artifact_store_in_seconds_with_one_line(
    store: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Place(
            tmp_path,
            {
                "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "AWS_ACCESS_KEY_ID": "nobody",
                "AWS_SECRET_ACCESS_KEY": "nothing",
                "MLFLOW_EXPERIMENT_ID": mlflow.create_experiment(
                    "silent", artifact_location="s3://silent"
                ),
                "PYTHONPATH": str(ROOT),
            },
        )
        start = time.monotonic()
        done = place.run([sys.executable, "-m", "steps.train", *TINY])
        seconds = time.monotonic() - start

    (run,) = MlflowClient(store).search_runs([place.variables["MLFLOW_EXPERIMENT_ID"]])
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert done.returncode == 1
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: artifacts cannot be written to s3://silent/")
    assert run.info.status == "FAILED"
    assert lines[0] == f"Error: {run.data.tags['error']}"
    assert seconds < 75, seconds


UPLOADING = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import click
from steps.step import Step

@click.command(cls=Step)
def step():
    upload = threading.Thread(target=lambda: ThreadPoolExecutor(1).submit(time.sleep, 3600).result(), daemon=True)
    upload.start()
    upload.join(0.5)

step()
"""


@pytest.mark.process
def test_a_step_that_is_done_leaves_an_upload_that_nobody_needs(store: str, tmp_path: Path) -> None:
    done = Place(tmp_path, {"PYTHONPATH": str(ROOT)}).run(
        [sys.executable, "-c", UPLOADING], timeout=300
    )

    assert done.returncode == 0, done.stderr
    assert [run.info.status for run in MlflowClient(store).search_runs(["0"])] == ["FINISHED"]


@pytest.mark.usefixtures("store")
def test_an_unknown_run_is_refused() -> None:
    assert_refused(invoke(log_model, "--run-id", "0" * 32), 1, "not found")


@pytest.mark.parametrize("command", [promote, evaluate], ids=["promote", "evaluate"])
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--model-name", "nobody"], 1, "registered model 'nobody' does not exist"),
        (["--version", "77"], 1, "has no version 77; its aliases are champion (version 1)"),
        (["--version", "two"], 2, "'two' is not the number of a model version"),
        (["--version", "0"], 2, "'0' is not the number of a model version"),
    ],
)
def test_unknown_versions_are_refused(
    command: click.Command,
    arguments: list[str],
    code: int,
    says: str,
    champion: model_version.Version,
) -> None:
    named = (
        arguments if "--model-name" in arguments else [*arguments, "--model-name", champion.name]
    )

    assert_refused(invoke(command, *named), code, says)


def test_an_unknown_alias_is_refused(champion: model_version.Version) -> None:
    assert_refused(
        invoke(evaluate, "--model-name", champion.name, "--alias", "hero"),
        1,
        "has no alias 'hero'; its aliases are",
    )


@pytest.mark.parametrize("command", [promote, evaluate], ids=["promote", "evaluate"])
def test_a_changed_byte_of_the_graph_is_refused(
    command: click.Command, champion: model_version.Version
) -> None:
    location = mlflow.get_logged_model(champion.model_id).artifact_location
    graph = Path(location.removeprefix("file://"), "agent", "policy.onnx")
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)

    result = invoke(
        command,
        "--model-name",
        champion.name,
        "--version",
        "1",
        *(["--alias", "other"] if command is promote else []),
    )

    assert_refused(result, 1, "its files changed after registration")
    assert MlflowClient().get_registered_model(champion.name).aliases == {"champion": 1}


def test_an_unreachable_server_fails_in_seconds(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mlflow.set_tracking_uri("http://127.0.0.1:9")

    result = invoke(train, *TINY)

    mlflow.set_tracking_uri(store)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: tracking server http://127.0.0.1:9 does not answer")
    assert result.stderr.count("\n") == 1


def assert_refused(result: Result, code: int, says: str) -> None:
    """One line on standard error, the same in the tag of a FAILED run."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    run = last_run()
    assert result.exit_code == code
    assert len(lines) == 1
    assert says in lines[0]
    assert run.info.status == "FAILED"
    assert lines[0] == f"Error: {run.data.tags['error']}"
