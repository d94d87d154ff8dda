"""What is wrong with an input, and where: a line to act on, which an editor can jump to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

# A manifest that is no manifest at all (a log, a database dump) has problems without end.
MOST_PROBLEMS = 1000

_SHOWN_CHARACTERS = 60
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong. They are ordered as they stand in the file.

    Attributes:
        line: counted from 1; 0 where the problem is the file's as a whole.
        column: counted from 1, in characters.
        path: where in the document, such as ``nodes[1].slots``, or "".
        message: what is wrong and what was expected, one line.
    """

    line: int
    column: int
    path: str
    message: str

    def render(self, source: str) -> str:
        """Returns the problem as one line that starts with `source`.

        >>> Problem(14, 12, "nodes[1].slots", "expected an integer").render("cluster.yaml")
        'cluster.yaml:14:12 nodes[1].slots: expected an integer'
        """
        place = f"{source}:{self.line}:{self.column}" if self.line else source
        return f"{place} {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


def render_all(problems: Iterable[Problem], source: str) -> list[str]:
    """Returns the problems as lines, in the order of the file, the last saying how many more."""
    ordered = sorted(set(problems))
    lines = [problem.render(source) for problem in ordered[:MOST_PROBLEMS]]
    if len(ordered) > MOST_PROBLEMS:
        lines.append(f"{source}: and {len(ordered) - MOST_PROBLEMS} more problems")
    return lines


def path_text(path: Iterable[str | int]) -> str:
    """Returns a path as it is written.

    >>> path_text(("nodes", 1, "env", "A B"))
    "nodes[1].env['A B']"
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{quoted(step)}]"
    return text


def quoted(text: str) -> str:
    """Returns a text in quotes, on one line, shortened where it is long."""
    if len(text) > _SHOWN_CHARACTERS:
        return repr(text[:_SHOWN_CHARACTERS]) + "…"
    return repr(text)


def suggestion(word: str, known: Iterable[str], mark: str = "") -> str:
    """Returns ``; did you mean 'slots'?``, or "" where nothing known is near.

    >>> suggestion("slot", ["name", "slots"])
    "; did you mean 'slots'?"
    """
    if len(word) > _SHOWN_CHARACTERS:
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{mark}{near[0]}'?" if near else ""
