"""Times and ratios: contestants run in turn, so that a busy machine is equally busy for all."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Literal, NamedTuple

__all__ = ["Call", "Memory", "Row", "Sense", "race"]

Call = Callable[[], object]

_SAMPLE = 0.02
"""Seconds that one sample takes at least; short calls are repeated."""


def race(
    contestants: Mapping[str, Call], *, rounds: int, before: Call | None = None
) -> dict[str, list[float]]:
    """Run A B C A B C ...; each ran once before, which warms caches and is not counted.

    Args:
        contestants: what to call, by name.
        rounds: samples of each.
        before: called before each call, and not counted.

    Returns:
        Seconds of one call, in the order of the rounds.
    """
    repeats = {
        name: max(1, min(1000, int(_SAMPLE / (_sample(call, 1, before) or 1e-9))))
        for name, call in contestants.items()
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            times[name].append(_sample(call, repeats[name], before))
    return times


def _sample(call: Call, repeats: int, before: Call | None) -> float:
    """Seconds of one call, what it returns taken down again."""
    gc.collect()
    total = 0.0
    for _ in range(repeats):
        if before is not None:
            before()
        start = perf_counter()
        call()
        total += perf_counter() - start
    return total / repeats


Sense = Literal["faster", "share", "time"]
"""How a ratio is told: times faster than the peer, percent of its speed, or times its time."""

_TEXTS: dict[Sense, str] = {
    "faster": "{:,.4g} times faster",
    "share": "{:.0%} of its speed",
    "time": "{:.2f} times its time",
}
_WANTED: dict[Sense, str] = {
    "faster": ">= {:g} times faster",
    "share": ">= {:.0%}",
    "time": "<= {:g} times",
}


class Memory(NamedTuple):
    """Peaks above the imports, in MiB.

    Attributes:
        resident: of the process.
        traced: of what Python and numpy allocated.
    """

    resident: float
    traced: float

    def text(self, *, both: bool) -> str:
        """Both, or the larger."""
        if both:
            return f"{_mib(self.resident)} (traced {_mib(self.traced)})"
        return _mib(max(self))


def _mib(value: float) -> str:
    return f"{value:,.1f} MiB" if value >= 0.1 else "< 0.1 MiB"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what bkformat does.
        peer: what it is held against.
        sense: how the ratio is told.
        ours, theirs: seconds, one sample a round.
        wanted: the ratio wanted, in the same sense; None where none was set.
        memory, peer_memory: peaks, where they were measured.
        memory_bound: MiB that are wanted at most; None where no bound was set.
        per: things done in one call, so that times can be told of one.
    """

    what: str
    peer: str
    sense: Sense
    ours: list[float]
    theirs: list[float]
    wanted: float | None = None
    memory: Memory | None = None
    peer_memory: Memory | None = None
    memory_bound: int | None = None
    per: int = 1

    def ratios(self) -> list[float]:
        """One a round: neighbours in time met the same machine."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return [ours / theirs if self.sense == "time" else theirs / ours for ours, theirs in pairs]

    @property
    def ratio(self) -> float:
        return median(self.ratios())

    @property
    def result(self) -> str:
        return _TEXTS[self.sense].format(self.ratio)

    @property
    def spread(self) -> str:
        """Where the middle half of the ratios lies."""
        low, _, high = quantiles(self.ratios(), n=4, method="inclusive")
        if self.sense == "share":
            return f"{low:.0%} to {high:.0%}"
        return f"{low:.3g} to {high:.3g}"

    def memory_text(self, *, both: bool) -> str:
        """What was measured; `both` as for `Memory.text`."""
        ours = self.memory.text(both=both) if self.memory else ""
        peers = f"; peer {self.peer_memory.text(both=both)}" if self.peer_memory else ""
        return ours + peers

    @property
    def target(self) -> str:
        ratio = "" if self.wanted is None else _WANTED[self.sense].format(self.wanted)
        bound = "" if self.memory_bound is None else f"< {self.memory_bound} MiB"
        return "; ".join(filter(None, (ratio, bound)))

    @property
    def missed(self) -> bool:
        """Whether the ratio or the memory is not what is wanted."""
        ratio, wanted, bound = self.ratio, self.wanted, self.memory_bound
        if bound is not None and self.memory is not None and max(self.memory) >= bound:
            return True
        if wanted is None:
            return False
        return ratio > wanted if self.sense == "time" else ratio < wanted

    @property
    def times(self) -> str:
        """Medians of one, ours and the peer's."""
        return (
            f"{_seconds(median(self.ours) / self.per)} / {_seconds(median(self.theirs) / self.per)}"
        )


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e6:.3g} us"
