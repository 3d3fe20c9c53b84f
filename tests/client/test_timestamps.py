from __future__ import annotations

from datetime import UTC, datetime

from mlflow_sb3.client import timestamps


def test_timestamps_are_milliseconds_since_the_epoch() -> None:
    before = datetime.now(UTC)
    now = timestamps.now_ms()
    after = datetime.now(UTC)

    assert isinstance(now, int)
    assert int(before.timestamp() * 1000) <= now <= int(after.timestamp() * 1000) + 1


def test_a_time_is_written_in_utc() -> None:
    assert timestamps.format_time(1_764_316_800_000) == "2025-11-28 08:00"
