"""Read the code blocks and the links of the documentation pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "deploy").glob("*/README.md"),
        ROOT / "benchmarks" / "README.md",
    ]
)
RUNNABLE_LANGUAGES = ("bash", "python")
NOT_TESTED = "not tested: "
"""Start of the comment above a block that no test runs. The reason follows."""

_COMMENT = re.compile(r"<!-- (.+) -->")
_FENCE = "```"


@dataclass(frozen=True)
class CodeBlock:
    """A fenced code block of a page."""

    page: Path
    line: int
    """Line number of the opening fence, counted from 1."""
    language: str
    comment: str
    """Text of the HTML comment directly above: the name of the example. Empty without a comment."""
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_code_blocks(page: Path) -> list[CodeBlock]:
    """Return the fenced code blocks of a page."""
    lines = page.read_text().splitlines()
    fences = [number for number, line in enumerate(lines) if line.strip().startswith(_FENCE)]
    blocks = []
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        comment = _COMMENT.fullmatch(lines[start - 1].strip())
        blocks.append(
            CodeBlock(
                page,
                start + 1,
                lines[start].strip().removeprefix(_FENCE),
                comment[1] if comment else "",
                "\n".join(lines[start + 1 : end]) + "\n",
            )
        )
    return blocks


def read_runnable_blocks() -> list[CodeBlock]:
    """Return the code blocks of all pages that hold commands or Python code."""
    blocks = [block for page in PAGES for block in read_code_blocks(page)]
    return [block for block in blocks if block.language in RUNNABLE_LANGUAGES]


def example(name: str) -> str:
    """Return the code block with the comment ``<!-- name -->`` directly above it."""
    blocks = [block for block in read_runnable_blocks() if block.comment == name]
    assert len(blocks) == 1, f"{name!r} names {len(blocks)} code blocks, expected one"
    return blocks[0].text


def short_example(name: str, timesteps: int = 300) -> str:
    """Return an example with a shorter training."""
    return re.sub(r"timesteps=\d+", f"timesteps={timesteps}", example(name))


def read_links(page: Path) -> list[str]:
    """Return the targets of the Markdown links and images of a page that point into the project."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def read_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
