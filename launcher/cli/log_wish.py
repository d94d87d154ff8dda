"""What of a run's logs is wanted, as it was typed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import click

from launcher.collect.log_reader import LogName, matcher


@dataclass(frozen=True)
class Wish:
    """What of the logs is wanted.

    Attributes:
        ranks: only these, None for all.
        nodes: only these, None for all.
        is_wanted: says whether a line is, None for all.
        since: only what came since then, seconds since 1970.
        merge: by time instead of one stream after the other.
    """

    follow: bool
    ranks: frozenset[int] | None
    nodes: frozenset[str] | None
    stream: str | None
    tail: int | None
    is_wanted: Callable[[bytes], bool] | None
    since: float | None
    merge: bool
    fold: bool
    raw: bool
    as_json: bool

    def wants(self, name: LogName) -> bool:
        """Says whether a log is."""
        return (
            (self.ranks is None or name.rank in self.ranks)
            and (self.nodes is None or name.node in self.nodes)
            and (self.stream is None or name.stream == self.stream)
        )


def parse_wish(
    *,
    follow: bool,
    rank: str | None,
    node: str | None,
    stream: str | None,
    tail: int | None,
    grep: str | None,
    since: str | None,
    merge: bool,
    fold: bool,
    raw: bool,
    as_json: bool,
    groups: Callable[[], Mapping[str, tuple[str, ...]]],
) -> Wish:
    """Returns what the command line asks for; `groups` gives those of the manifest.

    Raises:
        click.UsageError: an option cannot be read, or two exclude each other.
    """
    if sum((raw, fold, as_json)) > 1:
        raise click.UsageError("only one of --raw, --fold and --json")
    ranks = None if rank is None else _ranks(rank)
    names = None if node is None else _nodes(node, groups() if "@" in node else {})
    is_wanted = None if grep is None else _matcher(grep)
    at = None if since is None else _moment(since)
    return Wish(
        follow, ranks, names, stream, tail, is_wanted, at, merge or fold, fold, raw, as_json
    )


def _ranks(words: str) -> frozenset[int]:
    from launcher.core.nodeset import SetError, expand

    try:
        return frozenset(map(int, expand(f"[{words}]")))
    except SetError as error:
        raise click.BadParameter(str(error), param_hint="--rank") from None


def _nodes(words: str, groups: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    from launcher.core.nodeset import SetError, evaluate

    try:
        return evaluate(words, groups).chosen
    except SetError as error:
        raise click.BadParameter(str(error), param_hint="--node") from None


def _matcher(words: str) -> Callable[[bytes], bool]:
    try:
        return matcher(words)
    except ValueError as error:
        raise click.BadParameter(f"{words!r}: {error}", param_hint="--grep") from None


def _moment(words: str) -> float:
    from launcher.core.moments import moment

    try:
        return moment(words, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None
