from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlflow_sb3.tracking.journal import Journal, read_entries


def append_tags(journal: Journal, *values: str) -> None:
    """Append one entry per value."""
    for value in values:
        journal.append(tags={"key": value})


def stored_tags(folder: Path) -> list[str]:
    """Return the values that ``append_tags`` wrote to the journal of a folder."""
    return [entry["tags"]["key"] for entry in read_entries(folder)]


def test_a_reopened_journal_has_the_pending_entries(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "run", "uri")
    append_tags(journal, "a", "b", "c", "d", "e")
    journal.mark_delivered(2)
    journal.close()

    reopened = Journal.reopen(tmp_path)
    append_tags(reopened, "f")

    assert (reopened.run_id, reopened.tracking_uri) == ("run", "uri")
    assert [entry["n"] for entry in reopened.get_pending_entries()] == [3, 4, 5, 6]
    assert [entry["tags"]["key"] for entry in reopened.get_pending_entries()] == [
        "c",
        "d",
        "e",
        "f",
    ]
    reopened.close()


def test_reopen_can_change_the_tracking_uri(tmp_path: Path) -> None:
    Journal(tmp_path, "run", "old").close()

    reopened = Journal.reopen(tmp_path, "new")

    assert (reopened.run_id, reopened.tracking_uri) == ("run", "new")
    reopened.close()


@pytest.mark.parametrize("content", ["", "garbage"])
def test_all_entries_are_pending_if_the_delivered_number_is_unreadable(
    content: str, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, "run", "uri")
    append_tags(journal, "a")
    journal.close()
    (tmp_path / "delivered").write_text(content)

    reopened = Journal.reopen(tmp_path)

    assert [entry["n"] for entry in reopened.get_pending_entries()] == [1]
    reopened.close()


def test_a_journal_cut_at_any_byte_keeps_its_complete_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "complete", "run", "uri")
    append_tags(journal, "a", "b", "c")
    journal.close()
    content = (tmp_path / "complete" / "journal.jsonl").read_bytes()
    for length in range(len(content) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(content[:length])

        cut = Journal(folder, "run", "uri")
        complete_lines = len(cut.get_pending_entries())
        append_tags(cut, "new")
        cut.close()

        assert complete_lines == content[:length].count(b"}}")
        assert stored_tags(folder) == [*"abc"[:complete_lines], "new"]


def test_an_unwritable_journal_stays_in_memory_and_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no folder").write_text("a file at the path of the folder")

    journal = Journal(tmp_path / "no folder", "run", "uri")
    append_tags(journal, "a", "b")

    assert [entry["n"] for entry in journal.get_pending_entries()] == [1, 2]
    assert caplog.text.count("cannot be written") == 1


def test_entries_in_memory_are_written_when_the_disk_has_space_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file at the path of the folder")
    journal = Journal(folder, "run", "uri")
    append_tags(journal, "a")
    assert not journal.is_written()
    folder.unlink()

    append_tags(journal, "b")

    assert journal.is_written()
    assert stored_tags(folder) == ["a", "b"]
    journal.close()


def test_delivered_entries_are_not_written_later(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file at the path of the folder")
    journal = Journal(folder, "run", "uri")
    append_tags(journal, "a")
    journal.mark_delivered(1)
    folder.unlink()

    append_tags(journal, "b")

    assert stored_tags(folder) == ["b"]
    journal.close()


def test_a_journal_on_a_read_only_disk_can_be_reopened(small_disk: Path) -> None:
    journal = Journal(small_disk / "run", "run", "uri")
    append_tags(journal, "a")
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    assert [entry["n"] for entry in Journal.reopen(small_disk / "run").get_pending_entries()] == [1]


def test_other_users_cannot_read_the_folder_of_a_journal(tmp_path: Path) -> None:
    Journal(tmp_path / "run", "run", "https://user:secret@example.org").close()

    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
