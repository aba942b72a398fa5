"""Two lists of arrays side by side, as a good diff has them: what stands where, and what is new.

    1. the same beginning and end are set aside, and so is what only one list has
    2. of the rest, a longest common subsequence by dtype and shape
    3. between those, one by shape alone: the same array in another dtype
    4. what is left over is paired where both lists have the same number, else removed and added

The subsequence is exact: a row of its table is one integer, a bit for each column (Crochemore et
al. 2001, Hyyrö 2004), so that 5,000 arrays against 5,000 take some milliseconds. A row costs a
machine word for 64 columns, and only the square root of all rows is kept. Past MAX_CELLS no table
is made: arrays are paired by position, and `Alignment.exact` says so.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

from bkformat.arrays import ArrayLayout

__all__ = ["MAX_CELLS", "Alignment", "Place", "align"]

MAX_CELLS = 1 << 30
"""Rows times columns of a table that is made: 32,768 arrays against as many."""

Place = tuple[int | None, int | None]
"""Index in the first list and in the second; None where an array stands in the other list alone."""

_Pairs = list[tuple[int, int]]


class Alignment(NamedTuple):
    """Where each array of one list stands in the other.

    Attributes:
        places: every index of either list stands in exactly one of them, in ascending order.
        exact: False where the lists were too long and too different, so that some arrays were
            paired by position.
    """

    places: list[Place]
    exact: bool


def align(a: Sequence[ArrayLayout], b: Sequence[ArrayLayout]) -> Alignment:
    """Pair the arrays of two lists.

    >>> w, v = ArrayLayout("float32", (3, 4), "C", 0, 48), ArrayLayout("float32", (4,), "C", 0, 16)
    >>> align([w, v], [v, w, v]).places
    [(None, 0), (0, 1), (1, 2)]
    """
    places: list[Place] = []
    pairs, exact = _common([(x.dtype, x.shape) for x in a], [(x.dtype, x.shape) for x in b])
    for gap_a, gap_b, pair in _segments(pairs, len(a), len(b)):
        if gap_a and gap_b:
            inner, exact_here = _common([a[i].shape for i in gap_a], [b[j].shape for j in gap_b])
            exact = exact and exact_here
            for part_a, part_b, place in _segments(inner, len(gap_a), len(gap_b)):
                places += _left_over(
                    gap_a[part_a.start : part_a.stop], gap_b[part_b.start : part_b.stop]
                )
                places += [(gap_a[place[0]], gap_b[place[1]])] if place else []
        else:
            places += _left_over(gap_a, gap_b)
        places += [pair] if pair else []
    return Alignment(places, exact)


def _segments(
    pairs: _Pairs, stop_a: int, stop_b: int
) -> Iterator[tuple[range, range, tuple[int, int] | None]]:
    """What stands before each pair in either list, and the pair; last what follows them all."""
    at_a = at_b = 0
    for i, j in pairs:
        yield range(at_a, i), range(at_b, j), (i, j)
        at_a, at_b = i + 1, j + 1
    yield range(at_a, stop_a), range(at_b, stop_b), None


def _left_over(gap_a: range, gap_b: range) -> Iterator[Place]:
    """Arrays that nothing in the other list is like: as many here as there were replaced."""
    if len(gap_a) == len(gap_b):
        yield from zip(gap_a, gap_b, strict=True)
    else:
        yield from ((i, None) for i in gap_a)
        yield from ((None, j) for j in gap_b)


def _common(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[_Pairs, bool]:
    """Indices of a longest common subsequence; False where it was not looked for."""
    shorter = min(len(a), len(b))
    start = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    most = shorter - start
    end = next((i for i in range(most) if a[-1 - i] != b[-1 - i]), most)
    stop_a, stop_b = len(a) - end, len(b) - end
    in_both = set(a[start:stop_a]).intersection(b[start:stop_b])
    kept_a = [i for i in range(start, stop_a) if a[i] in in_both]
    kept_b = [j for j in range(start, stop_b) if b[j] in in_both]
    exact = len(kept_a) * len(kept_b) <= MAX_CELLS
    if not exact:
        middle = [(i, i) for i in range(start, min(stop_a, stop_b)) if a[i] == b[i]]
    elif len(kept_a) < len(kept_b):  # the rows are the longer list
        found = _longest([b[j] for j in kept_b], [a[i] for i in kept_a])
        middle = [(kept_a[i], kept_b[j]) for j, i in found]
    else:
        found = _longest([a[i] for i in kept_a], [b[j] for j in kept_b])
        middle = [(kept_a[i], kept_b[j]) for i, j in found]
    before = zip(range(start), range(start), strict=True)
    after = zip(range(stop_a, len(a)), range(stop_b, len(b)), strict=True)
    return [*before, *middle, *after], exact


def _longest(rows: Sequence[Hashable], columns: Sequence[Hashable]) -> _Pairs:
    """A longest common subsequence, from a table of bits.

    Bit j of row i is 0 where the first i rows have one item more in common with the first j + 1
    columns than with the first j.
    """
    places: dict[Hashable, list[int]] = {}
    for column, key in enumerate(columns):
        places.setdefault(key, []).append(column)
    ones = (1 << len(columns)) - 1

    @lru_cache(256)
    def columns_of(key: Hashable) -> int:
        bits = bytearray(len(columns) // 8 + 1)
        for column in places.get(key, ()):
            bits[column >> 3] |= 1 << (column & 7)
        return int.from_bytes(bits, "little")

    def following(row: int, key: Hashable) -> int:
        same = row & columns_of(key)
        return (row + same | row - same) & ones

    step = isqrt(len(rows)) + 1
    kept, row = [], ones
    for index, key in enumerate(rows):
        if index % step == 0:
            kept.append(row)
        row = following(row, key)
    pairs: _Pairs = []
    column = len(columns)
    for first in range((len(kept) - 1) * step, -1, -step):
        band = [kept.pop()]
        for key in rows[first : first + step]:
            band.append(following(band[-1], key))
        for index in range(len(band) - 2, -1, -1):
            while column and band[index + 1] >> column - 1 & 1:
                column -= 1
            if column and band[index] >> column - 1 & 1:
                column -= 1
                pairs.append((first + index, column))
    return pairs[::-1]
