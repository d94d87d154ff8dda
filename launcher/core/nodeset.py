"""Names with ranges (`gpu[01-16]`) and sets of them (`@fast,gpu[01-16]!gpu07`).

ClusterShell reads each range, so that padding, steps and folding are its own. What is around it is
ours: the order as written (addresses run in step with names), sizes known before memory is taken,
groups of the manifest, and errors that keep the faulty part. Operators hold from left to right, as
ClusterShell's do: `,` or, `!` without, `&` and, `^` either.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from launcher.core.problem import quoted, suggestion

MOST_NODES = 100_000

_FOLDED_NAMES = 20_000
_FOLDED_ADDRESSES = 64
_SHOWN_NAMES = 8
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?:/([0-9]{1,9}))?)?")
_SEVERAL_NUMBERS = re.compile(r"[0-9][^0-9]+[0-9]")
_OPERATOR = re.compile(r"([,!&^])(?![^\[\]]*\])")


class SetError(ValueError):
    """A range or set that cannot be read. The message keeps the faulty part."""


class UnknownGroupError(SetError):
    """A set names a group that there is not."""

    def __init__(self, group: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown group {quoted(f'@{group}')}{suggestion(group, known, '@')}")
        self.group = group


@dataclass(frozen=True)
class Selection:
    """What a set comes to.

    Attributes:
        chosen: the names in it.
        named: every name that was written, also those that an operator took out again.
    """

    chosen: frozenset[str]
    named: frozenset[str]


def expand(pattern: str, most: int = MOST_NODES) -> tuple[str, ...]:
    """Returns the names that a pattern stands for, in the order written.

    >>> expand("gpu[08-10,1]")
    ('gpu08', 'gpu09', 'gpu10', 'gpu1')

    Raises:
        SetError: a bracket or range is wrong, or the names are more than `most`.
    """
    pieces = _BRACKETS.split(pattern)
    if any(mark in literal for literal in pieces[::2] for mark in "[]"):
        raise SetError(f"{quoted(pattern)} has a bracket without its pair")
    if len(pieces) == 1:
        return (pattern,)
    if pattern.count(",") >= most:
        raise SetError(f"{quoted(pattern)} stands for more than {most} names")
    spans = [_spans(inside, pattern) for inside in pieces[1::2]]
    size = math.prod(sum(span.size for span in some) for some in spans)
    if size > most:
        raise SetError(f"{quoted(pattern)} stands for {size} names, more than {most}")
    axes: list[Sequence[str]] = [(literal,) for literal in pieces]
    axes[1::2] = [[number for span in some for number in span.numbers()] for some in spans]
    return tuple(map("".join, itertools.product(*axes)))


@dataclass(frozen=True)
class _Span:
    """One range inside brackets, such as ``02-16/2``."""

    text: str
    size: int
    pattern: str

    def numbers(self) -> list[str]:
        from ClusterShell.RangeSet import RangeSet, RangeSetException

        try:
            return [str(number) for number in RangeSet(self.text).striter()]
        except RangeSetException as error:
            reason = str(error).partition(":")[0].strip()
            raise SetError(_bad_range(self.text, self.pattern, reason)) from None


def _spans(inside: str, pattern: str) -> list[_Span]:
    return [_span(text.strip(), pattern) for text in inside.split(",")]


def _span(text: str, pattern: str) -> _Span:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise SetError(_bad_range(text, pattern, "expected numbers such as 1-8, 01-16/2 or 3"))
    first, last, step = (int(part) if part else None for part in found.groups())
    assert first is not None
    if last is not None and last < first:
        raise SetError(_bad_range(text, pattern, "it ends before it starts"))
    if step == 0:
        raise SetError(_bad_range(text, pattern, "a step is at least 1"))
    size = 1 if last is None else (last - first) // (step or 1) + 1
    return _Span(text, size, pattern)


def _bad_range(text: str, pattern: str, reason: str) -> str:
    return f"bad range {quoted(text)} in {quoted(pattern)}: {reason}"


def evaluate(expression: str, groups: Mapping[str, Iterable[str]]) -> Selection:
    """Returns the names that a set comes to.

    Args:
        expression: such as ``@fast,gpu[01-16]!gpu07``.
        groups: the names of each group.

    Raises:
        SetError: an operand or range is wrong, a group is not known, or there are too many names.
    """
    terms = _OPERATOR.split(expression)
    chosen: set[str] = set()
    named: set[str] = set()
    left = 2 * MOST_NODES
    for operator, term in zip([",", *terms[1::2]], terms[::2], strict=True):
        names = _operand(term.strip(), expression, groups)
        left -= len(names)
        if left < 0:
            raise SetError(f"{quoted(expression)} stands for too many names")
        named |= names
        _combine(operator, chosen, names)
    return Selection(frozenset(chosen), frozenset(named))


def _operand(term: str, expression: str, groups: Mapping[str, Iterable[str]]) -> set[str]:
    if not term:
        raise SetError(f"{quoted(expression)} lacks a name beside an operator")
    if not term.startswith("@"):
        return set(expand(term))
    group = term[1:]
    if group not in groups:
        raise UnknownGroupError(group, groups)
    return set(groups[group])


def _combine(operator: str, chosen: set[str], names: set[str]) -> None:
    """Changes `chosen` in place: a copy for each of many operands would take quadratic time."""
    if operator == ",":
        chosen |= names
    elif operator == "!":
        chosen -= names
    elif operator == "&":
        chosen &= names
    else:
        chosen ^= names


def fold_ranks(ranks: Iterable[int]) -> str:
    """Returns ranks in short.

    >>> fold_ranks([3, 0, 1, 2, 7])
    '0-3,7'
    """
    from ClusterShell.RangeSet import RangeSet

    return str(RangeSet.fromlist([str(rank) for rank in ranks]))


def fold(names: Iterable[str]) -> str:
    """Returns the names in short.

    >>> fold(["gpu03", "gpu01", "gpu02", "far"])
    'far,gpu[01-03]'
    """
    listed = list(names)
    # Folding names with several numbers (10.0.0.1) takes time that grows with their square.
    flat = not any(_SEVERAL_NUMBERS.search(name) for name in listed)
    if len(listed) > (_FOLDED_NAMES if flat else _FOLDED_ADDRESSES):
        return ",".join(listed[:_SHOWN_NAMES]) + f" and {len(listed) - _SHOWN_NAMES} more"
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        return str(NodeSet.fromlist(listed))
    except NodeSetException:
        return ",".join(listed)
