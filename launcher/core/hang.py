"""Whether a run hangs, from how long it was silent and what the agents say to that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from launcher.core.nodeset import fold_ranks
from launcher.core.stacks import Stack, fold, odd_ranks, parse
from launcher.wire import codec, events

# What collecting stacks may take before the run is stopped without them.
ANSWER_S = 15.0
# Of a stack, so many calls are shown.
MAX_FRAMES = 12


@dataclass(frozen=True)
class Suspicion:
    """No rank was heard of for so long that every worker is asked where it stands.

    Attributes:
        quiet_s: how long nothing came.
        asked_at: when the agents were asked, by the launcher's monotonic clock.
        quiet: for how long each node's workers had written nothing, by its own clock.
        stacks: where each rank stands.
    """

    quiet_s: float
    asked_at: float
    quiet: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    stacks: Mapping[int, Stack] = field(default_factory=lambda: MappingProxyType({}))

    def with_answer(self, node: str, answer: events.StacksCollected) -> Suspicion:
        """Returns what is known once a node has answered."""
        return replace(
            self,
            quiet=MappingProxyType({**self.quiet, node: answer.quiet_s}),
            stacks=MappingProxyType({**self.stacks, **_read(answer)}),
        )

    def is_settled(self, nodes: Iterable[str], now: float) -> bool:
        """Whether every node has answered, or has had its time."""
        return now >= self.asked_at + ANSWER_S or set(nodes) <= set(self.quiet)

    @property
    def is_confirmed(self) -> bool:
        """Whether no worker wrote: else what it wrote is only late to come here."""
        return all(quiet_s >= self.quiet_s / 2 for quiet_s in self.quiet.values())


def headline(suspicion: Suspicion) -> str:
    """Returns in one sentence what was seen."""
    words = f"no output, no metric and no step for {suspicion.quiet_s:g} s on any rank"
    groups = fold(suspicion.stacks)
    odd = odd_ranks(groups)
    if not odd:
        return words
    stack = next(group.stack for group in groups if group.ranks[0] == odd[0])
    noun, verb = ("rank", "stands") if len(odd) == 1 else ("ranks", "stand")
    where = f": {stack[0]}" if len(odd) == 1 and stack else ""
    return f"{words}; {noun} {fold_ranks(odd)} {verb} elsewhere than the others{where}"


def described(suspicion: Suspicion) -> list[str]:
    """Returns where the workers stand, equal stacks once, in lines."""
    lines: list[str] = []
    for ranks, stack in fold(suspicion.stacks):
        noun = "rank" if len(ranks) == 1 else "ranks"
        lines.append(f"{noun} {fold_ranks(ranks)}, the innermost call first:")
        lines += [f"  | {frame}" for frame in stack[:MAX_FRAMES] or ["it did not say where it is"]]
        lines += [f"  | and {len(stack) - MAX_FRAMES} more"] if len(stack) > MAX_FRAMES else []
    return lines


def _read(answer: events.StacksCollected) -> dict[int, Stack]:
    try:
        told = events.unpack_json(answer.data)
        return {int(rank): parse(str(text)) for rank, text in told.items()}
    except (codec.WireError, AttributeError, ValueError):
        return {}
