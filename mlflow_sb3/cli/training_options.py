"""Define the options of a training: those that decide the weights, and those that do not."""

from __future__ import annotations

import click

from mlflow_sb3.cli.options import (
    Command,
    IntegerList,
    JsonValue,
    LowerCase,
    OptionalValue,
    add_options,
    allow_pickle_option,
    state_folder_option,
)

ALGORITHM_NAMES = (
    "a2c, ars, crossq, ddpg, dqn, ppo, ppo_lstm, ppo_mask, qrdqn, sac, td3, tqc or trpo"
)
"""Names of all algorithms. A copy, because the module with the algorithms imports torch."""


def training_options(command: Command) -> Command:
    """Add the options that decide the trained weights."""
    return add_options(
        command,
        click.option(
            "--env",
            default="CartPole-v1",
            show_default=True,
            help="Gymnasium id of the environment, or module:id to import a module first, or "
            "module:function for a function that returns a VecEnv.",
        ),
        click.option(
            "--algo",
            default="dqn",
            show_default=True,
            type=LowerCase(),
            help=f"Algorithm: {ALGORITHM_NAMES}.",
        ),
        click.option(
            "--timesteps",
            default="",
            type=OptionalValue(click.IntRange(min=1)),
            help="Number of environment steps.  [default: number of the preset, or 50000]",
        ),
        click.option(
            "--seed",
            default=0,
            show_default=True,
            type=click.IntRange(min=0),
            help="Seed of the training and of the checkpoint evaluation.",
        ),
        click.option(
            "--hyperparams",
            default="{}",
            show_default=True,
            type=JsonValue('{"learning_rate": 1e-3}'),
            help="Hyperparameters. They override the same keys of the preset.",
        ),
        click.option(
            "--preset",
            default="zoo",
            show_default=True,
            type=click.Choice(["zoo", "none"]),
            help="zoo: tuned hyperparameters of rl_zoo3. none: defaults of SB3.",
        ),
        click.option(
            "--env-kwargs",
            default="{}",
            show_default=True,
            type=JsonValue('{"g": 9.81}'),
            help="Keyword arguments of the environment.",
        ),
        click.option(
            "--wrappers",
            default="[]",
            show_default=True,
            type=JsonValue('["module:Class", {"module:Class": {"argument": 1}}]'),
            help="Gymnasium wrappers. They are applied after the wrappers of the preset.",
        ),
        click.option(
            "--from-model",
            default="",
            help="URI of a model to fine-tune, such as models:/cartpole-v1-dqn@champion.  "
            "[default: train a new agent]",
        ),
        click.option(
            "--eval-freq",
            default="",
            type=OptionalValue(click.IntRange(min=1)),
            help="Environment steps between two evaluated checkpoints.  "
            "[default: a fiftieth of the timesteps, or more if --eval-budget requires it]",
        ),
        click.option(
            "--eval-episodes",
            default=10,
            show_default=True,
            type=click.IntRange(min=1),
            help="Episodes of each checkpoint during the training. With --selection best and none, "
            "the kept checkpoint plays as many new episodes after the training.",
        ),
        click.option(
            "--selection",
            default="race",
            show_default=True,
            type=click.Choice(["race", "best", "none"]),
            help="race: after the training, the best checkpoints play up to 760 new episodes. "
            "best: keep the checkpoint with the best mean return during the training. none: "
            "evaluate and keep only the last checkpoint.",
        ),
        click.option(
            "--eval-budget",
            default=0.1,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Time that the training may wait for evaluations and the selection, as a fraction "
            "of the time of learning, and at least 10 seconds.",
        ),
        click.option(
            "--race-episodes",
            default="",
            type=OptionalValue(click.IntRange(min=1)),
            help="New episodes of the race.  [default: 760, or fewer if --eval-budget requires it]",
        ),
    )


def settings_options(command: Command) -> Command:
    """Add the options that only ``train`` has.

    Only ``eval_steps`` and ``torch_threads`` change the weights.
    """
    return add_options(
        command,
        click.option(
            "--eval-steps",
            default="",
            type=OptionalValue(IntegerList()),
            help="Environment steps at which checkpoints are evaluated, as a JSON list, instead of "
            "--eval-freq. reproduce passes the steps of the training that it repeats.  "
            "[default: use --eval-freq]",
        ),
        click.option(
            "--torch-threads",
            default=1,
            show_default=True,
            type=click.IntRange(min=1),
            help="Number of threads of PyTorch. The trained weights depend on it.",
        ),
        click.option(
            "--resume",
            default="",
            help="Id of the run of an interrupted training to resume.  "
            "[default: start a new training]",
        ),
        click.option(
            "--snapshot-every",
            default="",
            type=OptionalValue(click.IntRange(min=1)),
            help="Environment steps between two snapshots.  "
            "[default: chosen to take 2 % of the time]",
        ),
        state_folder_option,
        click.option(
            "--delivery-timeout",
            default=60.0,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Seconds to wait for an unreachable tracking server after the training.",
        ),
        click.option(
            "--signing-key",
            default="",
            help="PEM file of the Ed25519 private key that signs the snapshots and the agent.  "
            "[default: a key of this machine]",
        ),
        click.option(
            "--public-key",
            default="",
            help="PEM file of the Ed25519 public key that must have signed the model of "
            "--from-model. A snapshot of --resume may have its signature instead of the one of "
            "this machine.  [default: none]",
        ),
        allow_pickle_option,
    )
