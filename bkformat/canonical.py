r"""The canonical form: equal updates give equal bytes, and every payload is aligned.

    header   version 1.0, 128 bytes
    stream   as numpy 1.19 to 1.26 write it, with these choices:
             protocol 3; 4 where a payload takes 4 GiB or more, which then is BINBYTES8; no frames
             only what is fetched again goes to the memo: names, b"b", orders and dtypes
             integers as short as they go, but for the version 1 of each array's state, which is a
             LONG1 padded with zeros (01 00 00 ... is 1 to every unpickler) up to the alignment
             C order, little-endian; lists in batches of 1,000

    array    h0 h1 K00 \x85 h2 \x87 R ( \x8a.. 01 00..  shape dtype \x89 C|B|\x8e length payload t b
    dtype    built where it is first used, fetched afterwards

The names are those of `numpy.core.multiarray`, so every numpy from 1.16 on loads it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from bkformat.arrays import ALIGNMENT
from bkformat.dtypes import ITEMSIZES, TEXTS

__all__ = ["ArraySignature", "CanonicalForm", "canonical_form"]

_HEADER_NBYTES = 128
_BATCH = 1000
_CONSTRUCT = b"h\0h\1K\0\x85h\2\x87R("
_GET_DTYPE = b"h\3"
_PADDED = [b"\x8a" + bytes([1 + zeros]) + b"\1" + bytes(zeros) for zeros in range(ALIGNMENT)]
"""The version 1, by the number of zeros that pad it."""

_PADDED_LEAST = len(_PADDED[0])
_NEXT, _NEXT_BATCH = b"tb" + _CONSTRUCT, b"tbe(" + _CONSTRUCT
_MINUS_ONE = b"J\xff\xff\xff\xff"


ArraySignature = tuple[str, tuple[int, ...]]
"""What the stream says of an array: numpy's name of its dtype, and its shape."""


class CanonicalForm(NamedTuple):
    """All bytes of a file but the payloads.

    Attributes:
        heads: what stands before each payload, and last of all what follows the last one.
        offsets: of each payload, bytes from the start of the file; multiples of 64.
        lengths: of each payload, in bytes.
        nbytes: bytes of the whole file.
    """

    heads: list[bytes]
    offsets: list[int]
    lengths: list[int]
    nbytes: int

    def structure(self) -> list[tuple[int, bytes]]:
        """Every byte outside payloads: (offset, bytes) in the order of the file."""
        ends = [*self.offsets, self.nbytes]
        return [(end - len(head), head) for end, head in zip(ends, self.heads, strict=True)]


def canonical_form(num_samples: int | None, arrays: Sequence[ArraySignature]) -> CanonicalForm:
    """Lay out a file.

    Args:
        num_samples: samples behind the update; None for an aggregate of arrays alone.
        arrays: dtype and shape of each; at least one, and all of them allowed.
    """
    records = _Records(arrays)
    before = records.opening(num_samples) + _CONSTRUCT
    heads: list[bytes] = []
    offsets: list[int] = []
    lengths: list[int] = []
    position = 0
    for array in arrays:
        after, nbytes = records.known.get(array) or records.slots(array)
        end = position + len(before) + _PADDED_LEAST + len(after)
        padding = -end % ALIGNMENT
        heads.append(before + _PADDED[padding] + after)
        offsets.append(end + padding)
        lengths.append(nbytes)
        position = end + padding + nbytes
        before = _NEXT_BATCH if len(heads) % _BATCH == 0 else _NEXT
    heads.append(records.closing(num_samples))
    return CanonicalForm(heads, offsets, lengths, position + len(heads[-1]))


class _Records:
    """Writes what repeats, and remembers what can be fetched.

    Attributes:
        known: what `slots` gave for arrays whose dtype is fetched.
    """

    def __init__(self, arrays: Sequence[ArraySignature]) -> None:
        self._count = len(arrays)
        self._uses = Counter([dtype for dtype, _ in arrays])
        self._protocol = 4 if any(_nbytes(array) >= 1 << 32 for array in set(arrays)) else 3
        self._orders = Counter(_order(dtype) for dtype in ("object", *self._uses))
        self._fetched: dict[str, bytes] = {}
        self.known: dict[ArraySignature, tuple[bytes, int]] = {}
        self._next_slot = 0

    # --- around the arrays ---

    def opening(self, num_samples: int | None) -> bytes:
        """Everything before the first array's record."""
        length = 2 if num_samples is not None else self._count
        lists = b"](" + _integer(num_samples) if num_samples is not None else b""
        return b"".join(
            [
                _header(length),
                b"\x80" + bytes([self._protocol]),
                b"cnumpy.core.multiarray\n_reconstruct\n" + self._put(),
                b"cnumpy\nndarray\n" + self._put(),
                b"K\0\x85C\1b" + self._put() + b"\x87R(K\1",
                _integer(length) + b"\x85",
                b"cnumpy\ndtype\n" + self._put() + self._new_dtype("object", "O8", 63),
                b"\x89" + lists + (b"]" if self._count == 1 else b"]("),
            ]
        )

    def closing(self, num_samples: int | None) -> bytes:
        """Everything after the last payload."""
        lists = b"e" if num_samples is not None else b""
        return b"tb" + (b"a" if self._count == 1 else b"e") + lists + b"tb."

    # --- one array ---

    def slots(self, array: ArraySignature) -> tuple[bytes, int]:
        """Its state from the shape up to the payload, and the bytes of the payload."""
        name, shape = array
        nbytes = _nbytes(array)
        dtype = self._fetched.get(name)
        first = dtype is None
        if dtype is None:
            dtype = _GET_DTYPE + self._new_dtype(name, TEXTS[name], 0)
        found = _shape(shape) + dtype + b"\x89" + _payload_head(nbytes), nbytes
        if not first:
            self.known[array] = found
        return found

    def _new_dtype(self, name: str, text: str, flags: int) -> bytes:
        """The call that makes a dtype whose class was just pushed, and its state."""
        call = _text(text) + b"\x89\x88\x87R"
        if self._uses[name] > 1:
            slot = self._next_slot
            call += self._put()
            self._fetched[name] = b"h" + bytes([slot])
        sign = _order(name)
        order = self._fetched.get(sign)
        if order is None:
            order = _text(sign)
            if self._orders[sign] > 1:
                self._fetched[sign] = b"h" + bytes([self._next_slot])
                order += self._put()
        return call + b"(K\3" + order + b"NNN" + _MINUS_ONE * 2 + _integer(flags) + b"tb"

    def _put(self) -> bytes:
        slot = self._next_slot
        self._next_slot += 1
        return b"q" + bytes([slot])


def _nbytes(array: ArraySignature) -> int:
    dtype, shape = array
    return prod(shape) * ITEMSIZES[dtype]


def _order(dtype: str) -> str:
    return "|" if dtype == "object" or ITEMSIZES[dtype] == 1 else "<"


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode("ascii")


def _integer(value: int) -> bytes:
    """The shortest of BININT1, BININT2, BININT and LONG1; never negative here."""
    if value < 1 << 8:
        return b"K" + bytes([value])
    if value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    nbytes = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([nbytes]) + value.to_bytes(nbytes, "little", signed=True)


_TUPLES = {1: b"\x85", 2: b"\x86", 3: b"\x87"}


def _shape(shape: tuple[int, ...]) -> bytes:
    if not shape:
        return b")"
    dims = b"".join(map(_integer, shape))
    return dims + _TUPLES[len(shape)] if len(shape) in _TUPLES else b"(" + dims + b"t"


def _payload_head(nbytes: int) -> bytes:
    """SHORT_BINBYTES, BINBYTES or BINBYTES8 and the length."""
    if nbytes < 1 << 8:
        return b"C" + bytes([nbytes])
    if nbytes < 1 << 32:
        return b"B" + struct.pack("<I", nbytes)
    return b"\x8e" + struct.pack("<Q", nbytes)


def _header(length: int) -> bytes:
    text = f"{{'descr': '|O', 'fortran_order': False, 'shape': ({length},), }}".encode()
    width = _HEADER_NBYTES - 10
    return b"\x93NUMPY\1\0" + struct.pack("<H", width) + text.ljust(width - 1) + b"\n"
