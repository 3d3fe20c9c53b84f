"""Replace the generated section of a description, and keep the text that users wrote around it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 5000
"""Length of a description or tag value that every database of MLflow accepts, in characters."""

_BEGIN_MARK = "<!-- mlflow-sb3: {label} -->"
"""Mark at the end of the first generated line, because MLflow's tables show the first characters
of a description as plain text. Earlier versions wrote it on a line of its own before the section.
"""
_END_MARK = "<!-- mlflow-sb3: end -->"
_BEGIN_OF_MARKS = "<!-- mlflow-sb3:"
_FIRST_LINE = re.compile(r"\d{4}-\d\d-\d\d |\*\*[^*]+\*\*: version ")
"""Beginning of the first generated line, of a version or of a registered model."""


@dataclass(frozen=True)
class Description:
    """A description in three parts.

    Attributes:
        above: Text of a user before the generated section.
        generated: The generated section without its marks; empty if there is none.
        below: Text of a user after the generated section.
    """

    above: str
    generated: str
    below: str

    @classmethod
    def parse(cls, text: str, label: str) -> Description:
        """Split a description.

        If a user deleted the mark at the end, all text after the first line counts as the user's.

        Args:
            text: The description.
            label: Name of the generated section.
        """
        mark = _BEGIN_MARK.format(label=label)
        before, found, after = text.partition(mark)
        if not found:
            return cls(text.strip(), "", "")
        above, _, first_line = before.rpartition("\n")
        if start := _FIRST_LINE.search(first_line):  # keep what a user wrote before it
            above = f"{above}\n{first_line[: start.start()]}"
            first_line = first_line[start.start() :]
        rest, has_end, below = after.partition(_END_MARK)
        if not has_end or _BEGIN_OF_MARKS in rest:
            rest, below = "", after
        generated = f"{first_line.strip()}{rest.rstrip()}".strip()
        return cls(above.strip(), generated, below.strip())

    def format(self, label: str) -> str:
        """Return the description with marks around the generated section.

        Args:
            label: Name of the generated section.
        """
        first_line, _, rest = self.generated.partition("\n")
        section = f"{first_line} {_BEGIN_MARK.format(label=label)}\n{rest}".rstrip()
        parts = (self.above, f"{section}\n\n{_END_MARK}", self.below)
        return "\n\n".join(part for part in parts if part)
