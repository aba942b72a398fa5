"""Values of arrays before they are written: looked at where they are, in the order of the list."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from bkformat.arrays import ArrayLayout
from bkformat.findings import Finding
from bkformat.members import Member, little_endian
from bkformat.values import BLOCK, FINITE, ArrayTally, all_finite

__all__ = ["judge_members", "watched_blocks"]

_FLOATS = frozenset({"float16", "float32", "float64"})
_PIECE = 1 << 13
"""Elements looked at at a time."""

_SMALL = 1 << 12
"""Elements of an array that is looked at together with others."""


def judge_members(members: Sequence[Member]) -> list[Finding]:
    """Look at every value.

    Returns:
        BK401 and BK402, in the order of the members, without an offset.
    """
    floats = [index for index, member in enumerate(members) if member.dtype in _FLOATS]
    sizes = {shape: prod(shape) for shape in {member.shape for member in members}}
    small = [index for index in floats if sizes[members[index].shape] <= _SMALL]
    with np.errstate(all="ignore"):
        if _all_small_finite([members[index] for index in small]):
            floats = [index for index in floats if sizes[members[index].shape] > _SMALL]
    return [found for index in floats for found in _findings(index, members[index])]


def _all_small_finite(members: Sequence[Member]) -> bool:
    """Whether thousands of small arrays are finite, in one look at each dtype."""
    together: dict[str, list[bytes | memoryview]] = {}
    for member in members:
        together.setdefault(member.dtype, []).extend(member.blocks())
    for dtype, blocks in together.items():
        values = np.frombuffer(b"".join(blocks), little_endian(dtype))
        # In pieces that BLAS does not hand to threads of its own.
        if not all(all_finite(values[at : at + _PIECE]) for at in range(0, len(values), _PIECE)):
            return False
    return True


def _findings(index: int, member: Member) -> list[Finding]:
    found: list[Finding] = []
    deque(watched_blocks(index, member, found), maxlen=0)
    return found


def watched_blocks(
    index: int, member: Member, found: list[Finding]
) -> Iterator[bytes | memoryview]:
    """The blocks of a member, every value of which is looked at as it passes by.

    Args:
        index: of the member.
        member: of an allowed dtype.
        found: what is wrong is added here, at the end.
    """
    layout = ArrayLayout(member.dtype, member.shape, "C", 0, member.nbytes)
    if not FINITE.apply_to(layout):
        yield from member.blocks()
        return
    tally = ArrayTally(index, layout, FINITE)
    start = 0
    for block in member.blocks():
        with np.errstate(all="ignore"):
            for at in range(0, len(block), BLOCK):
                tally.add(np.frombuffer(block, np.uint8)[at : at + BLOCK], start + at)
        start += len(block)
        yield block
    found += [replace(one, offset=None) for one in tally.findings()]
