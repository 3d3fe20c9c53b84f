"""Tests of the script that writes the parameter tables of docs/reference.md."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from docs import generate_reference
from mlflow_sb3.cli.options import JsonValue, OptionalValue


def test_the_reference_has_the_current_parameters() -> None:
    assert generate_reference.main(["--check"]) == 0


def test_the_check_fails_for_a_changed_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = generate_reference.REFERENCE.read_text()
    monkeypatch.setattr(generate_reference, "REFERENCE", tmp_path / "reference.md")
    (tmp_path / "reference.md").write_text(page.replace("| `algo` | string |", "| `algo` |"))

    assert generate_reference.main(["--check"]) == 1
    assert "Run python -m docs.generate_reference." in capsys.readouterr().err
    assert generate_reference.main([]) == 0
    assert (tmp_path / "reference.md").read_text() == page


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="The page lacks a mark"):
        generate_reference.update_page("# Reference", "table")


def test_a_row_has_the_parameter_its_type_its_default_and_its_effect() -> None:
    @click.command()
    @click.option("--env-kwargs", default="{}", type=JsonValue("{}"), help="Arguments.")
    @click.option(
        "--timesteps",
        default="",
        type=OptionalValue(click.IntRange(min=1)),
        help="Steps.  [default: 50000]",
    )
    @click.option("--fresh", default=False, type=click.BOOL, help="Start anew.")
    @click.option("--rule", default="test", type=click.Choice(["test", "force"]), help="Rule.")
    @click.option("--run-id", required=True, help="Run.")
    def command() -> None:
        """Do something."""

    assert generate_reference.format_tables([command]).splitlines()[6:] == [
        "| `env_kwargs` | JSON object | `{}` | Arguments. |",
        "| `timesteps` | integer ≥ 1, or empty | 50000 | Steps. |",
        "| `fresh` | boolean | `false` | Start anew. |",
        "| `rule` | `test` or `force` | `test` | Rule. |",
        "| `run_id` | string | required | Run. |",
    ]
