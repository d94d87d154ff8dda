"""Turns what pydantic says of a manifest into problems that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from launcher.core.manifest_schema import SECRET_KEYS, ManifestForm, holders_of, keys_under
from launcher.core.problem import MOST_PROBLEMS, Problem, path_text, quoted, suggestion
from launcher.core.yaml_tree import Node

Path = tuple[str | int, ...]

_NO_SECRETS = (
    "a manifest holds no passwords; use an SSH agent or a key ('ssh: {identity: …}'), "
    "or let flowlaunch prompt for it"
)


def check_form(tree: Node) -> tuple[ManifestForm | None, list[Problem]]:
    """Validates the form of a manifest.

    Returns:
        what it says, or None with every problem of form.
    """
    problems = [_secret(path, node) for path, node in _secrets(tree)]
    try:
        form = ManifestForm.model_validate(tree.plain())
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        # Beyond the bound only their number counts; the suggestions would take long.
        problems += [_problem(tree, detail) for detail in details[: MOST_PROBLEMS + 1]]
        problems += _uncounted(len(details) - MOST_PROBLEMS - 1)
        return None, [problem for problem in problems if problem.message]
    return (None if problems else form), problems


def _uncounted(count: int) -> list[Problem]:
    """Stands for problems that are not shown, each with a column of its own to be counted."""
    return [Problem(2**31, column, "", "not shown") for column in range(count)]


def _secrets(tree: Node) -> list[tuple[Path, Node]]:
    """Returns every key that is called like a password, wherever it is."""
    found: list[tuple[Path, Node]] = []
    waiting: list[tuple[Path, Node]] = [((), tree)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node.value, dict):
            inside = [((*path, key), child) for key, child in node.value.items()]
            found += [pair for pair in inside if str(pair[0][-1]).lower() in SECRET_KEYS]
        elif isinstance(node.value, list):
            inside = [((*path, index), child) for index, child in enumerate(node.value)]
        else:
            continue
        waiting += [pair for pair in inside if not _is_scalar(pair[1])]
    return found


def _is_scalar(node: Node) -> bool:
    return not isinstance(node.value, (dict, list))


def _secret(path: Path, node: Node) -> Problem:
    return Problem(*node.key_mark, path_text(path), _NO_SECRETS)


def _problem(tree: Node, detail: ErrorDetails) -> Problem:
    """Returns one error of pydantic as a problem; its message is "" where another one says it."""
    loc = detail["loc"]
    is_key = bool(loc) and loc[-1] == "[key]"
    path = loc[:-1] if is_key else loc
    node = _found(tree, path)
    if detail["type"] == "missing":
        parent = _found(tree, path[:-1]) or tree
        return Problem(*parent.mark, path_text(path[:-1]), f"{quoted(str(path[-1]))} is missing")
    assert node is not None
    if detail["type"] == "extra_forbidden":
        return Problem(*node.key_mark, path_text(path[:-1]), _unknown_key(path))
    mark = node.key_mark if is_key else node.mark
    return Problem(*mark, path_text(path), _message(detail, path, node, is_key))


def _found(tree: Node, path: Sequence[str | int]) -> Node | None:
    node: Node | None = tree
    for step in path:
        if node is None:
            return None
        if isinstance(step, int):
            node = node.value[step] if isinstance(node.value, list) else None
        else:
            node = node.get(step)
    return node


def _unknown_key(path: Path) -> str:
    key = str(path[-1])
    if key.lower() in SECRET_KEYS:
        return ""
    above = [step for step in path[:-1] if isinstance(step, str)]
    holder = above[-1] if above else ""
    hint = _elsewhere(key, holder) or suggestion(key, keys_under(holder))
    return f"unknown key {quoted(key)}{hint}"


def _elsewhere(key: str, holder: str) -> str:
    """Says where a key belongs that is known, but not here."""
    if holder == "defaults" and key in keys_under("nodes"):
        return f" here; each of the nodes has its own {quoted(key)}"
    places = [place for place in holders_of(key) if place != holder]
    if not places:
        return ""
    under = "at the top of the manifest" if places[0] == "" else f"under {quoted(places[0])}"
    return f" here; it stands {under}"


def _message(detail: ErrorDetails, path: Path, node: Node, is_key: bool) -> str:
    if detail["type"] == "problem":
        return detail["msg"]
    if detail["type"] == "too_short":
        return "expected at least one node, got none"
    expected = _expected(detail)
    if is_key:
        return f"expected {expected}"
    if "env" in path:
        # A value of the environment may be a secret: it is not repeated.
        return f"expected {expected}{_quote_hint(expected, node)}"
    return f"expected {expected}, got {_shown(node)}{_quote_hint(expected, node)}"


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "list_type":
        return "a list"
    if detail["type"] in ("dict_type", "model_type"):
        return "a mapping of keys to values"
    return detail["msg"]


def _quote_hint(expected: str, node: Node) -> str:
    value = node.value
    if isinstance(value, str):
        wants_number = expected.startswith(("an integer", "a port"))
        return "; take the quotes away" if wants_number and value.isdecimal() else ""
    wants_text = expected.startswith(("text", "a name", "a word"))
    is_other = isinstance(value, (bool, int, float))
    return "; put it in quotes" if wants_text and is_other else ""


def _shown(node: Node) -> str:
    value = node.value
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    return "nothing" if value is None else str(value)
