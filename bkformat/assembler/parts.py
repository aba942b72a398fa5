"""A tree of parts -> a stream: memo entries, frames, alignment and the offsets of places.

Source: Modules/_pickle.c (save, memo_put, _Pickler_OpcodeBoundary).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, Union

from bkformat.assembler.opcodes import (
    APPEND,
    APPENDS,
    BUILD,
    MARK,
    MEMOIZE,
    REDUCE,
    SETITEM,
    SETITEMS,
    STACK_GLOBAL,
    STOP,
    TUPLE,
    TUPLE1,
    TUPLE2,
    TUPLE3,
    binget,
    binput,
    frame,
    long1,
    long_binget,
    long_binput,
)

LARGE = 64 * 1024
"""Payloads of at least this many bytes lie outside frames; a frame that reached it is closed."""


class At(NamedTuple):
    """Writes nothing; the offset of what follows goes to `Built.at` under this name."""

    name: str = "here"


class Memo(NamedTuple):
    """A value that picklers write to the memo.

    Attributes:
        part: what builds the value.
        key: values of equal keys are built once and fetched afterwards; None for one used once.
        then: what follows the memo write where the value is built: the state of a dtype.
    """

    part: Part
    key: object = None
    then: Part = b""


class Aligned(NamedTuple):
    """The 1 of an array's state as a LONG1, padded so that what ends `before` ends at 64.

    Attributes:
        before: everything from there up to the first byte of the payload.
    """

    before: Part


Part: TypeAlias = Union[bytes, At, Memo, Aligned, Sequence["Part"]]  # noqa: UP007  (a name in a string has no |)

HERE = At()

_INSIDE = frozenset({
    MARK, TUPLE, TUPLE1, TUPLE2, TUPLE3, REDUCE, BUILD, APPEND, APPENDS, SETITEM, SETITEMS,
    STACK_GLOBAL, MEMOIZE, STOP,
})  # fmt: skip
"""Opcodes that go on with a value which began before."""

_LENGTHS = {b"B": 5, b"\x8e": 9}
"""Payload opcodes, and the bytes they take with their length."""


class Built(NamedTuple):
    """Bytes, and the offsets of the places that were named."""

    data: bytes
    at: dict[str, int]

    @property
    def here(self) -> int:
        return self.at["here"]


@dataclass
class _Writer:
    """Writes a tree of parts; offsets count from the start of the file."""

    offset: int
    protocol: int
    memo: str
    frames: bool
    uses: Counter[object] = field(default_factory=Counter)
    out: bytearray = field(default_factory=bytearray)
    slots: dict[object, int] = field(default_factory=dict)
    entries: int = 0
    frame_start: int | None = None
    at: dict[str, int] = field(default_factory=dict)

    def write(self, part: Part) -> None:
        if isinstance(part, bytes):
            self._write_bytes(part)
        elif isinstance(part, At):
            self._open_frame()
            self.at[part.name] = self.offset + len(self.out)
        elif isinstance(part, Memo):
            self._write_memo(part)
        elif isinstance(part, Aligned):
            self._write_aligned(part)
        else:
            for inner in part:
                self.write(inner)

    def _write_bytes(self, data: bytes) -> None:
        if data and data[:1] not in _INSIDE:
            self._begin_value()
        if data[:1] in _LENGTHS and len(data) - _LENGTHS[data[:1]] >= LARGE:
            self.close_frame()
        elif data:
            self._open_frame()
        self.out += data

    def _begin_value(self) -> None:
        """Picklers look at the length of a frame where a value begins, and nowhere else."""
        if self.frame_start is not None and len(self.out) - self.frame_start >= LARGE:
            self.close_frame()

    def _write_memo(self, part: Memo) -> None:
        self._begin_value()
        slot = self.slots.get(part.key) if part.key is not None else None
        if slot is not None:
            self.write(binget(slot) if slot < 256 else long_binget(slot))
            return
        self.write(part.part)
        again = part.key is not None and self.uses[part.key] > 1
        if self.memo == "all" or (self.memo == "used" and again):
            self._put(part.key)
        self.write(part.then)

    def _put(self, key: object) -> None:
        if self.protocol >= 4:
            self.write(MEMOIZE)
        else:
            self.write(binput(self.entries) if self.entries < 256 else long_binput(self.entries))
        if key is not None:
            self.slots[key] = self.entries
        self.entries += 1

    def _write_aligned(self, part: Aligned) -> None:
        start = len(self.out)
        self.write(part.before)
        end = self.offset + len(self.out) + len(long1(1))
        inserted = long1(1, 1 + -end % 64)
        self.out[start:start] = inserted
        for name, at in self.at.items():
            if at >= self.offset + start:
                self.at[name] = at + len(inserted)

    def _open_frame(self) -> None:
        if self.frames and self.frame_start is None:
            self.out += frame(0)
            self.frame_start = len(self.out)

    def close_frame(self) -> None:
        if self.frame_start is not None:
            start = self.frame_start
            self.out[start - 8 : start] = struct.pack("<Q", len(self.out) - start)
            self.frame_start = None


def _count(part: Part, uses: Counter[object]) -> None:
    """How often each key is used; what is inside a value counts once, where it is built."""
    if isinstance(part, Memo):
        if part.key is not None:
            uses[part.key] += 1
        if part.key is None or uses[part.key] == 1:
            _count([part.part, part.then], uses)
    elif isinstance(part, Aligned):
        _count(part.before, uses)
    elif not isinstance(part, (bytes, At)):
        for inner in part:
            _count(inner, uses)


def assemble(
    part: Part,
    *,
    offset: int = 0,
    protocol: int = 4,
    memo: str = "all",
    frames: bool = False,
    start: bytes = b"",
) -> Built:
    """The bytes of a tree of parts.

    Args:
        part: the tree.
        offset: where in the file the bytes will stand.
        protocol: 4 writes the memo with MEMOIZE, 3 with BINPUT.
        memo: "all" as picklers do, "used" for entries that are fetched alone, or "none".
        frames: whether to lay frames as picklers do.
        start: bytes before the first frame: PROTO.
    """
    writer = _Writer(offset, protocol, memo, frames)
    _count(part, writer.uses)
    writer.out += start
    writer.write(part)
    writer.close_frame()
    return Built(bytes(writer.out), writer.at)
