from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests import ROOT
from tests.project.readme import (
    NOT_TESTED,
    PAGES,
    CodeBlock,
    example,
    read_anchors,
    read_code_blocks,
    read_links,
    read_runnable_blocks,
)

TEST_SOURCES = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "mlflow_sb3").rglob("*.py")
}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def stored_names() -> set[str]:
    """Return the tag names in the source code, without the alias or the file name at the end."""
    names = set()
    for folder in ("mlflow_sb3", "steps"):
        for path in (ROOT / folder).rglob("*.py"):
            constants = [
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
            names |= {text for text in constants if re.fullmatch(r"mlflow_sb3\.[a-z_{}.]+", text)}
    return {re.sub(r"\.(\{alias\})?$", "", name) for name in names - MODULES}


def test_the_readme_has_at_most_130_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_code_block_has_a_language(page: Path) -> None:
    assert [str(block) for block in read_code_blocks(page) if not block.language] == []


@pytest.mark.parametrize("block", read_runnable_blocks(), ids=str)
def test_every_command_is_run_by_a_test_or_marked_as_not_tested(block: CodeBlock) -> None:
    is_run = re.search(rf'example\(\s*"{re.escape(block.comment)}"', TEST_SOURCES) is not None

    assert is_run or (block.comment.startswith(NOT_TESTED) and len(block.comment) > len(NOT_TESTED))


def test_every_example_has_a_name_of_its_own() -> None:
    names = [
        block.comment
        for block in read_runnable_blocks()
        if not block.comment.startswith(NOT_TESTED)
    ]

    assert sorted(names) == sorted(set(names))


def test_ci_extracts_the_test_command_of_the_readme() -> None:
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()
    assert example("tests").startswith("pip install -r tests/requirements.txt && ")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_point_to_existing_files_and_headings(page: Path) -> None:
    broken = []
    for link in read_links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in read_anchors(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_file_names_in_the_text_exist(page: Path) -> None:
    names = re.findall(r"`((?:mlflow_sb3|steps|tests|docs|deploy)/[\w/.]+)`", page.read_text())

    assert [name for name in names if not (ROOT / name).exists()] == []


def test_architecture_names_existing_modules_of_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = {path.parent.name for path in (ROOT / "mlflow_sb3").glob("*/__init__.py")}
    modules = re.findall(rf"`((?:{'|'.join(packages)})/\w+\.py)`", text)

    assert [package for package in packages if f"`mlflow_sb3/{package}`" not in text] == []
    assert [module for module in modules if not (ROOT / "mlflow_sb3" / module).exists()] == []


def test_the_reference_lists_every_tag() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()

    assert [name for name in stored_names() if f"`{name}" not in text] == []
