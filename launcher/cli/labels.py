"""The `node:rank` in front of every line of a worker: short, stable, all of one width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")
_FOLDED_COLOUR = "bold"


class Labels:
    """What stands in front of workers' lines.

    >>> labels = Labels({0: "gpu1", 1: "gpu1", 2: "gpu2"})
    >>> labels.of(0), labels.of_all([0, 1, 2])
    ('gpu1:0 | ', 'gpu[1-2]:0-2 | ')
    """

    def __init__(self, nodes: Mapping[int, str]) -> None:
        """Takes the node of each rank."""
        self._nodes = nodes
        self._width = max((len(f"{node}:{rank}") for rank, node in nodes.items()), default=0)
        self._folded: dict[tuple[int, ...], str] = {}

    def of(self, rank: int) -> str:
        """Returns what stands in front of a rank's lines."""
        return self.at(self._nodes[rank], rank)

    def at(self, node: str, rank: int) -> str:
        """Returns what stands in front of what a rank wrote on a node that it may have left."""
        return f"{f'{node}:{rank}':<{self._width}} | "

    def of_all(self, ranks: Sequence[int]) -> str:
        """Returns what stands in front of a line that all these ranks wrote."""
        if len(ranks) == 1:
            return self.of(ranks[0])
        key = tuple(ranks)
        if key not in self._folded:
            if len(self._folded) > 1000:
                self._folded.clear()
            self._folded[key] = f"{self._fold(key):<{self._width}} | "
        return self._folded[key]

    def _fold(self, ranks: Sequence[int]) -> str:
        from launcher.core.nodeset import fold, fold_ranks

        nodes = dict.fromkeys(self._nodes[rank] for rank in ranks)
        return f"{fold(nodes)}:{fold_ranks(ranks)}"

    def colour(self, ranks: Sequence[int]) -> str:
        """Returns the colour of a label: always the same for a rank, another one for many."""
        return COLOURS[ranks[0] % len(COLOURS)] if len(ranks) == 1 else _FOLDED_COLOUR
