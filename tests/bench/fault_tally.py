"""What a scenario is, and what is counted while it is played."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

__all__ = ["NEVER", "NotProvenError", "Run", "Scenario", "Tally"]

NEVER = (
    "stored twice", "neither", "followed", "sent elsewhere",
    "lost", "offered twice", "offered when done", "left at the broker", "not kept aside",
    "wrong", "old file harmed", "litter", "past the deadline",
    "let in twice", "not named", "untyped",
)  # fmt: skip
"""Whatever else happens, these do not: an invariant is broken where one of them is not 0."""

_MOST_NOTES = 5


class NotProvenError(Exception):
    """This machine can't show it; the message says why."""


@dataclass
class Tally:
    """What came of one scenario.

    Attributes:
        runs: how often the fault was played.
        counts: how often what happened, by name.
        notes: the first things that went wrong, one line each.
    """

    runs: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, count: int = 1) -> None:
        """Count it; 0 shows that it was looked for."""
        self.counts[name] = self.counts.get(name, 0) + count

    def note(self, text: str) -> None:
        """Keep what helps to find out; only the first few."""
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(" ".join(text.split())[:300])

    @property
    def broken(self) -> bool:
        """Whether something happened that never may."""
        return any(self.counts.get(name) for name in NEVER)

    def text(self) -> str:
        """The counts in one line, those of what never may happen at the end."""
        usual = [f"{count} {name}" for name, count in self.counts.items() if name not in NEVER]
        never = [f"{count} {name}" for name, count in self.counts.items() if name in NEVER]
        return "; ".join(filter(None, (", ".join(usual), ", ".join(never))))


@dataclass
class Run:
    """One playing of a scenario.

    Attributes:
        name: of the scenario.
        rng: the only source of chance.
        runs: how often the fault is to be played.
        folder: an empty one.
        published: with the published client rather than ours.
        seconds: after which no further fault is begun.
        played: how often it was played so far.
    """

    name: str
    rng: Random
    runs: int
    folder: Path
    published: bool = False
    seconds: float = math.inf
    played: int = 0

    def steps(self) -> Iterator[int]:
        """0, 1, 2 ..., and now and then a word on how far it is."""
        who = "branchkey" if self.published else "bktransport"
        end = time.monotonic() + self.seconds
        for step in range(self.runs):
            if time.monotonic() > end:
                return
            if self.runs >= 20 and step and step % (self.runs // 4) == 0:
                print(f"{self.name}, {who}: {step}/{self.runs}", file=sys.stderr, flush=True)
            self.played = step + 1
            yield step


@dataclass(frozen=True)
class Scenario:
    """A fault, and how it is played.

    Attributes:
        name: for `--only`.
        what: is done, for the table.
        play: plays it; may raise `NotProvenError`.
        pace: which of the three numbers of runs it takes.
        published: how often at most the published client meets it; 0 where there is no comparison.
        why_not: then, in a word.
    """

    name: str
    what: str
    play: Callable[[Run], Tally]
    pace: Literal["usual", "slow", "broker"] = "usual"
    published: int = 0
    why_not: str = "not compared"
