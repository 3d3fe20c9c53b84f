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
_FIRST_LINE = re.compile(r"\d{4}-\d\d-\d\d |\*\*[^*]+\*\*: version |\*\*Model card\*\*: ")
"""Beginning of the first generated line, of a version, a registered model or a model card."""


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
    def parse(cls, text: str, label: str, *, before: str | None = None) -> Description:
        """Split a description.

        If a user deleted the mark at the end, all text after the first line counts as the user's.

        Args:
            text: The description.
            label: Name of the generated section.
            before: Name of another generated section. If the first one is missing, its place is
                before this one, or else at the end.
        """
        parts = _find_first_line(text, label)
        if parts is None:
            place = None if before is None else _find_first_line(text, before)
            if place is None:
                return cls(text.strip(), "", "")
            return cls(place[0].strip(), "", text[len(place[0]) :].strip())
        above, first_line, after = parts
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


def _find_first_line(text: str, label: str) -> tuple[str, str, str] | None:
    """Return the text before the first line of a section, that line, and the text after its mark.

    None if the text has no such section.
    """
    before, found, after = text.partition(_BEGIN_MARK.format(label=label))
    if not found:
        return None
    start = before.rfind("\n") + 1
    if match := _FIRST_LINE.search(before, start):  # keep what a user wrote before it
        start = match.start()
    return before[:start], before[start:], after
