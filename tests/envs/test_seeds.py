from __future__ import annotations

from typing import get_args

from mlflow_sb3.envs.seeds import SeedStream, generate_episode_seeds


def test_a_longer_list_of_seeds_begins_with_the_shorter_one() -> None:
    seeds = generate_episode_seeds(3, "gate", 100)

    assert seeds[:10] == generate_episode_seeds(3, "gate", 10)
    assert seeds[10:] == generate_episode_seeds(3, "gate", 90, start=10)


def test_streams_and_base_seeds_share_no_episode_seeds() -> None:
    lists = [
        generate_episode_seeds(seed, stream, 1000)
        for seed in range(3)
        for stream in get_args(SeedStream)
    ]

    assert len(set().union(*lists)) > 0.9999 * sum(map(len, lists))
    assert len({seeds[0] for seeds in lists}) == len(lists)


def test_seeds_are_non_negative_and_have_31_bits() -> None:
    assert all(0 <= seed < 2**31 for seed in generate_episode_seeds(0, "choice", 1000))
