"""Write the parameter tables of docs/reference.md from the options of the commands.

Usage: ``python -m docs.generate_reference`` writes the file. With ``--check`` it writes nothing and
exits with code 1 if the file differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.export_agent import export_agent
from mlflow_sb3.cli.import_agent import import_agent
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.main import main as main_step
from mlflow_sb3.cli.options import OptionalValue, VersionNumber
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.reproduce import reproduce
from mlflow_sb3.cli.rollback import rollback
from mlflow_sb3.cli.train import train

REFERENCE = Path(__file__).parent / "reference.md"
BEGIN = "<!-- begin: parameters, written by docs/generate_reference.py -->\n"
END = "<!-- end: parameters -->\n"
COMMANDS: tuple[click.Command, ...] = (
    main_step,
    train,
    log_model,
    import_agent,
    export_agent,
    promote,
    rollback,
    evaluate,
    reproduce,
)
_DEFAULT_NOTE = "  [default: "
"""Start of the last part of a help text, which explains the default."""


def format_tables(commands: Sequence[click.Command] = COMMANDS) -> str:
    """Return a heading, a sentence and a table of parameters for each command."""
    return "\n".join(_format_command(command) for command in commands)


def update_page(page: str, tables: str) -> str:
    """Return a page with new tables between the two marks.

    Raises:
        ValueError: The page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page lacks a mark. Add {BEGIN.strip()} and {END.strip()}.")
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Write or check docs/reference.md, and return the exit code."""
    page = REFERENCE.read_text()
    updated = update_page(page, format_tables())
    if "--check" not in arguments:
        REFERENCE.write_text(updated)
    elif updated != page:
        click.echo(
            "docs/reference.md differs from the options. Run python -m docs.generate_reference.",
            err=True,
        )
        return 1
    return 0


def _format_command(command: click.Command) -> str:
    summary = (command.help or "").partition("\n")[0]
    options = [option for option in command.params if isinstance(option, click.Option)]
    lines = [
        f"### `{str(command.name).replace('-', '_')}`",
        "",
        summary,
        "",
        "| parameter | type | default | effect |",
        "| --- | --- | --- | --- |",
        *(_format_option(option) for option in options),
        "",
    ]
    return "\n".join(lines)


def _format_option(option: click.Option) -> str:
    name = option.opts[0].removeprefix("--").replace("-", "_")
    effect, _, note = (option.help or "").partition(_DEFAULT_NOTE)
    cells = (f"`{name}`", _format_type(option.type), _format_default(option, note), effect)
    return f"| {' | '.join(cells)} |"


def _format_type(param_type: click.ParamType[Any]) -> str:
    match param_type:
        case OptionalValue():
            return f"{_format_type(param_type.inner)}, or empty"
        case VersionNumber():
            return "integer ≥ 1, or empty"
        case click.Choice():
            return " or ".join(f"`{choice}`" for choice in param_type.choices)
        case click.IntRange() | click.FloatRange():
            kind = "integer" if isinstance(param_type, click.IntRange) else "float"
            return f"{kind} ≥ {param_type.min}"
    return {"text": "string"}.get(param_type.name, param_type.name)


def _format_default(option: click.Option, note: str) -> str:
    if note:
        return note.removesuffix("]")
    if option.required:
        return "required"
    if option.default == "":
        return "empty"
    value = str(option.default)
    return f"`{value.lower() if isinstance(option.default, bool) else value}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
