"""YAML text to a tree that knows where each value stands.

It is built from the parser's events, not by `yaml.load`: a manifest needs the position of every
key, duplicate keys noticed, and bounds that hold before memory is taken. Scalars follow YAML 1.2
(`on`, `0o7`, `22:22` and `010` are text), as editors do. Aliases are refused, and with them every
document that grows when it is read; `defaults:` does what they would be used for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from launcher.core.problem import Problem, path_text, quoted

MOST_VALUES = 250_000
MOST_DEPTH = 12

Scalar = str | int | float | bool | None
Plain = Scalar | list["Plain"] | dict[str, "Plain"]
Mark = tuple[int, int]

_NO_MARK = (0, 0)
_FORBIDDEN = re.compile(
    "[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufefe\\uff00-\\ufffd\\U00010000-\\U0010ffff]"
)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
    r"[-+]?([0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30}|[0-9]{1,30}(?=[eE]))([eE][-+]?[0-9]{1,9})?"
)
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """The text cannot be read to its end. `problem` says where and why."""

    def __init__(self, mark: Mark, message: str, path: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(*mark, path, message)


@dataclass(slots=True)
class Node:
    """One value.

    Attributes:
        value: a scalar, the items of a list, or the values of a mapping by key.
        mark: line and column of the value, from 1.
        key_mark: line and column of its key, where it stands in a mapping.
    """

    value: Scalar | list[Node] | dict[str, Node]
    mark: Mark
    key_mark: Mark = _NO_MARK

    def get(self, key: str) -> Node | None:
        """Returns the value of a key, or None where there is none or this is no mapping."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def plain(self) -> Plain:
        """Returns the value without its positions."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def read_tree(text: str) -> tuple[Node, list[Problem]]:
    """Reads one YAML document.

    Returns:
        the tree, and the problems that did not keep it from being read: duplicate keys (the first
        value holds).

    Raises:
        YamlError: it cannot be read to its end, or is more than a manifest can be.
    """
    text = text.removeprefix("\ufeff")
    _check_characters(text)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _translated(error, text) from None
    if builder.root is None or builder.root.value is None:
        raise YamlError((1, 1), "the manifest is empty; it names at least its nodes")
    return builder.root, builder.problems


@dataclass
class _Frame:
    """A list or mapping that is still open.

    Attributes:
        key: the newest key of a mapping.
        wants_key: whether a mapping's next event is a key.
    """

    node: Node
    wants_key: bool
    key: str = ""
    key_mark: Mark = _NO_MARK


@dataclass
class _Builder:
    """Takes the events one by one. No recursion: depth is the document's choice, not Python's."""

    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)
    frames: list[_Frame] = field(default_factory=list)
    count: int = 0

    def take(self, event: yaml.Event) -> None:
        """Adds one event to the tree."""
        if isinstance(event, yaml.ScalarEvent):
            self.scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self.opened(event, Node({}, _mark(event)))
        elif isinstance(event, yaml.SequenceStartEvent):
            self.opened(event, Node([], _mark(event)))
        elif isinstance(event, yaml.CollectionEndEvent):
            self.frames.pop()
        elif isinstance(event, yaml.AliasEvent):
            self.alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.document(event)

    def document(self, event: yaml.DocumentStartEvent) -> None:
        if self.root is not None:
            raise YamlError(_mark(event), "a second document starts here; a manifest is one")

    def alias(self, event: yaml.AliasEvent) -> None:
        name = quoted(f"*{event.anchor}")
        raise YamlError(
            _mark(event),
            f"YAML aliases ({name}) are not used here; what nodes share goes under 'defaults'",
            self.path(),
        )

    def scalar(self, event: yaml.ScalarEvent) -> None:
        frame = self.frames[-1] if self.frames else None
        if frame is not None and frame.wants_key:
            frame.key, frame.key_mark, frame.wants_key = event.value, _mark(event), False
            return
        self.refuse_tag(event)
        value = _resolved(event.value) if event.implicit[0] else event.value
        self.add(Node(value, _mark(event)))

    def opened(self, event: yaml.NodeEvent, node: Node) -> None:
        frame = self.frames[-1] if self.frames else None
        if frame is not None and frame.wants_key:
            raise YamlError(node.mark, "a key is one word, not a list or mapping", self.path())
        self.refuse_tag(event)
        self.add(node)
        if len(self.frames) == MOST_DEPTH:
            raise YamlError(node.mark, f"nested deeper than {MOST_DEPTH} levels")
        self.frames.append(_Frame(node, wants_key=isinstance(node.value, dict)))

    def add(self, node: Node) -> None:
        self.count += 1
        if self.count > MOST_VALUES:
            raise YamlError(node.mark, f"more than {MOST_VALUES} values, more than a manifest has")
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        if isinstance(frame.node.value, list):
            frame.node.value.append(node)
        elif isinstance(frame.node.value, dict):
            self.add_value(frame, frame.node.value, node)
            frame.wants_key = True

    def add_value(self, frame: _Frame, values: dict[str, Node], node: Node) -> None:
        """Adds a mapping's value under the key that waits for it."""
        node.key_mark = frame.key_mark
        first = values.setdefault(frame.key, node)
        if first is not node:
            message = f"given twice; the first is on line {first.key_mark[0]}"
            self.problems.append(Problem(*node.key_mark, self.path(), message))

    def refuse_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise YamlError(
                _mark(event), f"YAML tags ({quoted(tag)}) are not used here", self.path()
            )

    def path(self) -> str:
        """Returns where the next value would stand."""
        steps: list[str | int] = []
        for frame in self.frames:
            if isinstance(frame.node.value, list):
                inside = frame is not self.frames[-1]
                steps.append(len(frame.node.value) - inside)
            elif frame is not self.frames[-1] or not frame.wants_key:
                steps.append(frame.key)
        return path_text(steps)


def _mark(event: yaml.Event) -> Mark:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else _NO_MARK


def _resolved(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _check_characters(text: str) -> None:
    found = _FORBIDDEN.search(text)
    if found is not None:
        raise YamlError(
            mark_at(text, found.start()), f"the character {found.group()!r} has no place in YAML"
        )


def mark_at(text: str, offset: int) -> Mark:
    r"""Returns line and column, from 1, of an offset into the text.

    >>> mark_at("ab\ncd", 4)
    (2, 2)
    """
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _translated(error: yaml.YAMLError, text: str) -> YamlError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return YamlError((1, 1), f"not YAML: {str(error).splitlines()[0]}")
    place = (mark.line + 1, mark.column + 1)
    if _starts_with_tab(text, *place):
        return YamlError(place, "a tab; YAML is indented with spaces")
    context, start = getattr(error, "context", None), getattr(error, "context_mark", None)
    around = f" {context} that starts on line {start.line + 1}" if context and start else ""
    return YamlError(place, f"not YAML: {problem}{around}")


def _starts_with_tab(text: str, line: int, column: int) -> bool:
    lines = text.split("\n", line)
    if line > len(lines):
        return False
    before = lines[line - 1][:column]
    return "\t" in before and not before.strip()
