r"""How array records look, in each of the ways that picklers write them.

An array record has a fixed opcode run; only the shape, the dtype's memo slot, the order and the
payload vary. In form E (protocol 4), with MEMOIZE written as p:

    h. h. K00 \x85 p h. \x87 p R p ( K01   shape p   h. \x88|\x89 C.   payload   p t p b

In forms C and D each p is BINPUT or LONG_BINPUT with the next index. In the canonical form there is
none, the arguments may come from the memo as a whole, and K01 is a LONG1 padded with zeros.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from math import prod
from typing import NamedTuple

from bkformat.opcodes import op

__all__ = [
    "LONGEST_HEAD", "MOST_PUTS", "NO_PUT", "PUTS", "Form", "Names", "Puts", "decode_shape",
    "payload_length", "record_form",
]  # fmt: skip

_INT64_MAX = 2**63 - 1
LONGEST_HEAD = 512
"""Bytes of a record up to its payload, with room to spare: 32 dimensions take 160, padding 257."""

MOST_PUTS = 6
"""Memo writes of a record; one without dimensions has one fewer."""

_LONGEST_PADDING = 80
"""Bytes of a padded version that are looked for first; aligning to 64 takes fewer."""

_DIM = rb"(?:K.|M..|J...[\x00-\x7f])"
_SHAPE = rb"(\)|" + _DIM + rb"{1,3}[\x85-\x87]|\(" + _DIM + rb"{4,32}t)"
_DIM_WIDTHS = {op.BININT1: 1, op.BININT2: 2, op.BININT: 4}


class Names(NamedTuple):
    """Memo slots, each below 256, from which every record fetches its names.

    Attributes:
        reconstruct, ndarray, typecode: of `_reconstruct`, `ndarray` and `b"b"`.
        arguments: of the whole (ndarray, (0,), b"b"), or None where each record builds it.
    """

    reconstruct: int
    ndarray: int
    typecode: int
    arguments: int | None


class Puts(NamedTuple):
    """How a record writes to the memo.

    Attributes:
        code: the opcode, b"" where records write nothing.
        width: bytes of an index; 0 where there is none.
        write: packs the opcode and an index.
        head: packs the four parts of a head and the indexes between them.
        tail: packs two writes and the opcodes between and behind them.
    """

    code: bytes
    width: int
    write: struct.Struct
    head: struct.Struct
    tail: struct.Struct

    @property
    def last(self) -> int:
        """The greatest index; 0 where there is none."""
        return (1 << 8 * self.width) - 1

    def tail_from(self, slot: int) -> bytes:
        """What follows a payload that goes to `slot`."""
        if not self.width:
            return self.code + b"t" + self.code + b"b"
        return self.tail.pack(self.code, slot, b"t" + self.code, slot + 1, b"b")


def _puts_of(code: bytes, index: str) -> Puts:
    texts = f"<1s{index}", f"<8s{index}4s{index}2s{index}3s", f"<1s{index}2s{index}1s"
    return Puts(code, struct.calcsize(f"<{index}"), *map(struct.Struct, texts))


NO_PUT = 0
"""Stands for an opcode where records write nothing to the memo."""

PUTS = {
    NO_PUT: _puts_of(b"", ""),
    op.MEMOIZE: _puts_of(b"\x94", ""),
    op.BINPUT: _puts_of(b"q", "B"),
    op.LONG_BINPUT: _puts_of(b"r", "I"),
}


class Form(NamedTuple):
    """Records whose names come from the same memo slots, and which write to it in the same way.

    Attributes:
        pattern: a record up to its payload: padded version, shape, memo write, dtype and order,
            length.
        parts: what stands before, between and behind the first three memo writes, up to the
            version 1 as pickle writes it.
        starts: without indexes, every start of a record that is known by heart -> the rest of its
            version, b"" where that is pickle's own.
    """

    pattern: re.Pattern[bytes]
    parts: tuple[bytes, bytes, bytes, bytes]
    starts: dict[bytes, bytes]


@lru_cache(maxsize=8)
def record_form(names: Names, put: int) -> Form:
    puts = PUTS[put]
    code, index = puts.code, b"." * puts.width
    fetch_all = _get(names.reconstruct)
    if names.arguments is None:
        calls = [fetch_all + _get(names.ndarray) + b"K\0\x85", _get(names.typecode) + b"\x87", b"R"]
    else:
        calls = [fetch_all + _get(names.arguments), b"", b"R"]
    parts = [call + code if call else b"" for call in calls]
    start = b"".join(parts) + b"("
    starts = {start + b"K\x01": b""}
    for nbytes in range(1, _LONGEST_PADDING):
        starts[start + b"\x8a" + bytes([nbytes])] = b"\x01".ljust(nbytes, b"\0")
    p = re.escape(code) + index
    text = (
        b"".join(re.escape(call) + p for call in calls if call)
        + rb"\((?:K\x01|\x8a(.\x01\x00*))" + _SHAPE
        + (rb"(?:" + re.escape(code) + b"(" + index + rb"))?" if code else rb"(\Z)?")
        + rb"(?P<rest>(?:h.|j....)[\x88\x89])(?:C(.)|B(....))"
    )  # fmt: skip
    pattern = re.compile(text, re.DOTALL)
    return Form(pattern, (parts[0], parts[1], parts[2], b"(K\x01"), starts)


def _get(slot: int) -> bytes:
    return b"h" + bytes([slot])


def payload_length(nbytes: int) -> bytes:
    """What stands before a payload; past 4 GiB it is another opcode, which no record here has."""
    if nbytes < 256:
        return _SHORT[nbytes]
    return b"B" + (nbytes & 0xFFFF_FFFF).to_bytes(4, "little")


_SHORT = [b"C" + bytes([nbytes]) for nbytes in range(256)]
_IS_SHAPE = re.compile(_SHAPE, re.DOTALL).fullmatch

# Every second byte of the shapes whose dimensions are below 256 and can't overflow, by length.
_FEW = {1: b")", 3: b"K\x85", 5: b"KK\x86", 7: b"KKK\x87"}
_MORE = {2 + 2 * rank: b"K" * rank + b"t" for rank in range(4, 8)}


def decode_shape(text: bytes) -> tuple[int, ...] | None:
    """The shape that these opcodes push; None where they are none that fit, or it is huge."""
    if text[::2] == _FEW.get(len(text)):
        return tuple(text[1::2])
    if text[1::2] == _MORE.get(len(text)) and text[0] == op.MARK:
        return tuple(text[2:-1:2])
    if not _IS_SHAPE(text):
        return None
    dims = []
    index = 1 if text[0] == op.MARK else 0
    last = len(text) - 1
    while index < last:
        width = _DIM_WIDTHS[text[index]]
        dims.append(int.from_bytes(text[index + 1 : index + 1 + width], "little"))
        index += 1 + width
    if text[0] != op.MARK and len(dims) != text[last] - op.TUPLE1 + 1:
        return None
    return tuple(dims) if prod(dim or 1 for dim in dims) <= _INT64_MAX // 16 else None
