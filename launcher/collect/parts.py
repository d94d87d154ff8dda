"""Checkpoints that several ranks hold parts of: one whole, as soon as every part is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.collect.fetching import Holder
from launcher.core.published import Part, Published, PublishedFile, join_parts


@dataclass
class _Set:
    """The parts of a step that are known."""

    parts: dict[int, Published] = field(default_factory=dict)
    holders: dict[str, Holder] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """A checkpoint all of whose parts are known, and who holds each of its files, by path."""

    published: Published
    holders: dict[str, Holder]

    def place(self, file: PublishedFile) -> Holder:
        """Says whom to ask for a file."""
        return self.holders[file.path]


class PartSets:
    """The steps of which some parts are known."""

    def __init__(self) -> None:
        """Knows none."""
        self._sets: dict[tuple[int, int, tuple[int, ...]], _Set] = {}

    def add(self, node: str, name: str, published: Published, part: Part) -> Whole | None:
        """Takes a part that stands on a node under a name; returns the whole that it completes.

        Raises:
            BadManifest: the parts do not fit together.
        """
        key = (published.step, part.attempt, part.of)
        known = self._sets.setdefault(key, _Set())
        known.parts[part.rank] = published
        known.holders |= {file.path: Holder(node, name, file.path) for file in published.files}
        if len(known.parts) < len(part.of):
            return None
        del self._sets[key]
        return Whole(join_parts(known.parts.values()), known.holders)

    def missing(self) -> dict[int, tuple[str, list[int]]]:
        """Returns, by step, a node that holds a part and the ranks of whose part nothing is known.

        Of several attempts at a step the last one counts.
        """
        return {
            step: (next(iter(known.holders.values())).node, sorted(set(of) - set(known.parts)))
            for (step, _, of), known in sorted(self._sets.items())
            if known.holders
        }
