"""Small files whose structure was read before are recognised instead of read again.

The stages before values look at the bytes outside payloads and at the size of the file, at nothing
else, so two files that agree in these have the same layout. A site sends the same model every
round, and an aggregator gets it from every site: then comparing a few hundred bytes is all there
is to do. One number is left open: num_samples, which no stage looks at before the end.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from bkformat.findings import Finding
from bkformat.source import Source
from bkformat.stream import op
from bkformat.symbolic import SymbolicUnpickler

__all__ = ["MAX_NBYTES", "Structure", "recall", "remember"]

MAX_NBYTES = 1 << 16
"""Files past this size are read, which then costs less than looking at their values."""

_CAPACITY = 32
_INT_WIDTHS = {op.BININT1: 1, op.BININT2: 2, op.BININT: 4}


class Structure(NamedTuple):
    """What was read of one file.

    Attributes:
        pieces: the bytes that were looked at, as (offset, bytes), without the count.
        count_at: offset and length of the bytes of num_samples; None where they are in `pieces`.
        result: what the stages made of it.
        findings: warnings that came with it.
    """

    pieces: tuple[tuple[int, bytes], ...]
    count_at: tuple[int, int] | None
    result: Any
    findings: tuple[Finding, ...]


_known: dict[tuple[int, object], Structure] = {}
_lock = threading.Lock()


def recall(source: Source, options: object) -> tuple[Structure, int | None, bytes] | None:
    """The structure that this file shares with an earlier one, its count, and its bytes."""
    known = _known.get((source.nbytes, options))
    if known is None:
        return None
    data = source.read_at(0, source.nbytes)
    for offset, piece in known.pieces:
        if not data.startswith(piece, offset):
            return None
    if known.count_at is None:
        return known, None, data
    start, width = known.count_at
    return known, int.from_bytes(data[start : start + width], "little", signed=width == 4), data


def remember(
    source: Source,
    options: object,
    machine: SymbolicUnpickler,
    pieces: Sequence[tuple[int, bytes]],
    count_offset: int | None,
    result: Any,
    findings: Sequence[Finding],
) -> None:
    """Keep what was read, for the next file of this size."""
    looked_at = [*pieces, *((offset, b"b") for offset in machine.typecodes)]
    count = None
    if count_offset is not None:
        code = source.read_at(count_offset, 1)[0]
        if code in _INT_WIDTHS:
            count = (count_offset + 1, _INT_WIDTHS[code])
            looked_at = [part for piece in looked_at for part in _without(piece, *count)]
    structure = Structure(tuple(looked_at), count, result, tuple(findings))
    with _lock:
        if len(_known) >= _CAPACITY:
            del _known[next(iter(_known))]
        _known[source.nbytes, options] = structure


def _without(piece: tuple[int, bytes], start: int, width: int) -> list[tuple[int, bytes]]:
    """A piece in two, without the bytes [start, start + width) where they are in it."""
    offset, text = piece
    at = start - offset
    if not 0 <= at < len(text):
        return [piece]
    return [(offset, text[:at]), (start + width, text[at + width :])]
