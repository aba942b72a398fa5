r"""The fast path of stage 3: runs of array records, as picklers write them one after another.

An array record has a fixed opcode run; only the shape, the dtype's memo slot, the order and the
payload vary. In form E (protocol 4), with MEMOIZE written as p:

    h. h. K00 \x85 p h. \x87 p R p ( K01   shape p   h. \x88|\x89 C.   payload   p t p b

In forms C and D each p is BINPUT or LONG_BINPUT with the next index. In the canonical form there is
none, the arguments may come from the memo as a whole, and K01 is a LONG1 padded with zeros. One
compiled expression reads all up to the payload.

It is an accelerator alone: a record that differs in any byte, and anything wrong, is left for the
slow path, which reads it from its first byte. A property test holds the two together.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import Any, Literal, NamedTuple

from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.stream import OpcodeStream, Span, Window, op
from bkformat.symbols import DType, Pair, PyTuple

__all__ = ["NO_PUT", "Names", "RecordReader", "Run"]

_INT64_MAX = 2**63 - 1
_LONGEST_HEAD = 512
"""Bytes of a record up to its payload, with room to spare: 32 dimensions take 160, padding 257."""

_WINDOW = 1 << 16
"""Bytes looked at in one go; payloads that reach past them are stepped over."""

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


class _Puts(NamedTuple):
    """How a record writes to the memo, and where its indexes stand.

    Attributes:
        code: the opcode, b"" where records write nothing.
        width: bytes of an index; 0 where there is none.
        head: unpacks the first three indexes from the start of a record.
        tail: unpacks the memo writes and the opcodes between and behind them.
    """

    code: bytes
    width: int
    head: struct.Struct
    tail: struct.Struct

    def tail_from(self, slot: int) -> tuple[Any, ...]:
        """What `tail` must give where the payload goes to `slot`."""
        if not self.width:
            return (self.code + b"t" + self.code + b"b",)
        return (self.code, slot, b"t", self.code, slot + 1, b"b")


NO_PUT = 0
"""Stands for an opcode where records write nothing to the memo."""

_PUTS = {
    NO_PUT: _Puts(b"", 0, struct.Struct(""), struct.Struct("<2s")),
    op.MEMOIZE: _Puts(b"\x94", 0, struct.Struct(""), struct.Struct("<4s")),
    op.BINPUT: _Puts(b"q", 1, struct.Struct("<8xB4xB2xB"), struct.Struct("<cBccBc")),
    op.LONG_BINPUT: _Puts(b"r", 4, struct.Struct("<8xI4xI2xI"), struct.Struct("<cIccIc")),
}


@lru_cache(maxsize=8)
def _pattern(names: Names, put: int) -> re.Pattern[bytes]:
    """A record up to its payload: padded version, shape, memo write, dtype and order, length."""
    code, index = re.escape(_PUTS[put].code), b"." * _PUTS[put].width
    p = code + index
    if names.arguments is None:
        called = _get(names.ndarray) + rb"K\x00\x85" + p + _get(names.typecode) + rb"\x87" + p
    else:
        called = _get(names.arguments)
    text = (
        _get(names.reconstruct) + called + rb"R" + p + rb"\((?:K\x01|\x8a(.\x01\x00*))" + _SHAPE
        + (rb"(?:" + code + b"(" + index + rb"))?" if code else rb"(\Z)?")
        + rb"((?:h.|j....)[\x88\x89])(?:C(.)|B(....))"
    )  # fmt: skip
    return re.compile(text, re.DOTALL)


def _get(slot: int) -> bytes:
    return b"h" + re.escape(bytes([slot]))


class _Spec(NamedTuple):
    """What the shape, dtype and order of a record say.

    Attributes:
        dims, dtype, order: of the array.
        nbytes: of its payload; -1 where the slow path must look.
        puts: memo entries that a record writes.
        opcodes: of a record.
    """

    dims: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"]
    nbytes: int
    puts: int
    opcodes: int


_NO_SPEC = _Spec((), "", "C", -1, 0, 0)


def _decode_shape(text: bytes) -> tuple[int, ...] | None:
    """The shape that these opcodes push; None where their number does not fit or it is huge."""
    if len(text) < 8 and text[:-1:2] == b"KKK"[: text[-1] - op.TUPLE1 + 1]:
        return tuple(text[1::2])  # up to three dimensions below 256
    dims = []
    index = 1 if text[0] == op.MARK else 0
    last = len(text) - 1
    while index < last:
        width = _DIM_WIDTHS[text[index]]
        dims.append(int.from_bytes(text[index + 1 : index + 1 + width], "little"))
        index += 1 + width
    few = text[last] in (op.TUPLE1, op.TUPLE2, op.TUPLE3)
    if few and len(dims) != text[last] - op.TUPLE1 + 1:
        return None
    return tuple(dims) if prod(dim or 1 for dim in dims) <= _INT64_MAX // 16 else None


class Run:
    """Stands in the memo for every slot that a run of records wrote.

    Attributes:
        pairs: (array, offset of its record), in the order of the file.
        start, stop: the first memo slot, and the one after the last.
        opcodes: of all records.
        long_ones: records whose version is a padded LONG1.
    """

    __slots__ = (
        "_arguments", "_dtypes", "_starts", "long_ones", "opcodes", "pairs", "start", "stop",
    )  # fmt: skip

    def __init__(
        self, start: int, arguments: tuple[PyTuple, PyTuple], dtypes: dict[str, DType]
    ) -> None:
        self.pairs: list[Pair] = []
        self.start = self.stop = start
        self.opcodes = 0
        self.long_ones = 0
        self._arguments = arguments
        self._dtypes = dtypes
        self._starts: list[int] = []

    def resolve(self, index: int) -> Any:
        """The value in memo slot `index`, made on demand: honest files ask for none or few."""
        if not self._starts:
            slots = [6 if found.shape else 5 for found, _ in self.pairs]
            self._starts = list(accumulate(slots, initial=self.start))
        record = bisect_right(self._starts, index) - 1
        found, _ = self.pairs[record]
        span = Span(found.offset, found.nbytes)
        shape = PyTuple(found.shape, 1)
        state = (1, shape, self._dtypes[found.dtype], found.order == "F", span)
        values = [*self._arguments, found, shape, span, PyTuple(state, 2)]
        if not found.shape:
            values.remove(shape)
        return values[index - self._starts[record]]


class RecordReader:
    """Reads runs of records whose names come from the same memo slots.

    Args:
        names: where the names are.
        arguments: what the first two slots of every record hold: (0,) and (ndarray, (0,), b"b").
        put: the opcode that writes the memo, or NO_PUT.
    """

    __slots__ = ("_arguments", "_dtypes", "_match", "_opcodes", "_puts", "_rests", "_specs")

    def __init__(self, names: Names, arguments: tuple[PyTuple, PyTuple], put: int) -> None:
        self._match = _pattern(names, put).match
        self._puts = _PUTS[put]
        self._opcodes = 15 if names.arguments is None else 11
        self._arguments = arguments
        self._specs: dict[bytes, _Spec] = {}
        self._rests: dict[bytes, tuple[str, int, Literal["C", "F"]]] = {}
        self._dtypes: dict[str, DType] = {}

    def read_run(self, stream: OpcodeStream, memo: list[Any], room: int) -> Run:
        """Read records until one is not of the form; at most `room`; stream and memo move on."""
        run = Run(len(memo), self._arguments, self._dtypes)
        window: Window | None = stream.window()
        while window is not None:
            resumed = self._read_window(stream, window, memo, run, room)
            window = self._next_window(stream, resumed, memo, run, room)
        memo.extend([run] * (run.stop - run.start))
        stream.resume(resumed, run.opcodes)
        return run

    def _read_window(
        self, stream: OpcodeStream, window: Window, memo: list[Any], run: Run, room: int
    ) -> Window:
        """Read the records that lie wholly in the window; it is returned at the first that is not.

        Everything is in this one loop, since calls would double its time.
        """
        buffer, base, index, cut = window
        end = stream.limit(window)
        match, new = self._match, tuple.__new__  # half the time of ArrayLayout(...)
        specs, pairs, puts = self._specs, run.pairs, self._puts
        width, code = puts.width, puts.code
        indexes, tail_at = puts.head.unpack_from, puts.tail.unpack_from
        tail, tail_nbytes, from_bytes = code + b"t" + code + b"b", puts.tail.size, int.from_bytes
        keep = stream.structure.append if stream.keeps_structure else None
        slot, opcodes, long_ones = run.stop, 0, 0
        for _ in range(room - len(pairs)):
            record = match(buffer, index, end)
            if record is None:
                break
            padded, shape, put, rest, short, long = record.groups()
            start = record.end()
            stop = start + (short[0] if short else int.from_bytes(long, "little"))
            after = stop + tail_nbytes
            spec = specs.get(shape + rest) or self._spec(shape, rest, memo)
            dims, dtype, order, nbytes, entries, count = spec
            if after > end or start + nbytes != stop or (put is not None) is not (entries == 6):
                break
            if padded is not None and padded[0] != len(padded) - 1:
                break
            if width:
                if indexes(buffer, index) != (slot, slot + 1, slot + 2) or (
                    dims and from_bytes(put, "little") != slot + 3
                ):
                    break
                last = slot + entries
                if tail_at(buffer, stop) != (code, last - 2, b"t", code, last - 1, b"b"):
                    break
            elif buffer[stop:after] != tail:
                break
            pairs.append(
                (new(ArrayLayout, (dtype, dims, order, base + start, nbytes)), base + index)
            )
            if keep is not None:
                keep((base + cut, buffer[cut:start]))
            slot += entries
            opcodes += count
            long_ones += padded is not None
            cut, index = stop, after
        run.stop = slot
        run.opcodes += opcodes
        run.long_ones += long_ones
        return Window(buffer, base, index, cut)

    def _next_window(
        self, stream: OpcodeStream, window: Window, memo: list[Any], run: Run, room: int
    ) -> Window | None:
        """Where to go on: at the same record with more bytes behind it, or past a large payload.

        None where the slow path must look.
        """
        buffer, base, index, _ = window
        if len(run.pairs) >= room:
            return None
        record = self._match(buffer, index)
        if record is None:
            if not index or len(buffer) - index > _LONGEST_HEAD or not stream.beyond(window):
                return None
            stream.enter(window, stream.frame_end)
            return stream.peek(base + index, _WINDOW)
        padded, shape, put, rest, short, long = record.groups()
        start = record.end()
        spec = self._specs.get(shape + rest) or self._spec(shape, rest, memo)
        named = short[0] if short else int.from_bytes(long, "little")
        if named != spec.nbytes or (put is not None) is not (spec.puts == 6):
            return None
        if padded is not None and padded[0] != len(padded) - 1:
            return None
        if not self._in_sequence(window, put, run.stop):
            return None
        opcode = base + start - (2 if short else 5)
        length = _WINDOW if named < _WINDOW else _WINDOW // 16
        passed = stream.past_payload(opcode, base + start + named, length)
        if passed is None:
            return None
        following, frame_end = passed
        after = following.at + self._puts.tail.size
        if after > stream.limit(following, frame_end):
            return None
        tail = self._puts.tail.unpack_from(following.buffer, following.at)
        if tail != self._puts.tail_from(run.stop + spec.puts - 2):
            return None
        found = ArrayLayout(spec.dtype, spec.dims, spec.order, base + start, named)
        run.pairs.append((found, base + index))
        run.stop += spec.puts
        run.opcodes += spec.opcodes
        run.long_ones += padded is not None
        stream.enter(window._replace(at=start), frame_end)
        return following._replace(at=after)

    def _in_sequence(self, window: Window, put: bytes | None, slot: int) -> bool:
        """Whether the memo writes of the head at the window's index go to `slot` and on."""
        if not self._puts.width:
            return True
        first = self._puts.head.unpack_from(window.buffer, window.at)
        fourth = int.from_bytes(put, "little") if put is not None else slot + 3
        return (*first, fourth) == (slot, slot + 1, slot + 2, slot + 3)

    def _spec(self, shape: bytes, rest: bytes, memo: list[Any]) -> _Spec:
        """What these opcodes of a record say; kept, since memo slots never change."""
        dims = _decode_shape(shape)
        dtype, itemsize, order = self._rests.get(rest) or self._rest(rest, memo)
        if dims is None or not itemsize or (order == "F" and len(dims) < 2):
            return _NO_SPEC
        puts = (6 if dims else 5) if self._puts.code else 0
        opcodes = self._opcodes + len(dims) + (len(dims) > 3) + puts
        spec = _Spec(dims, dtype, order, prod(dims) * itemsize, puts, opcodes)
        self._specs[shape + rest] = spec
        return spec

    def _rest(self, rest: bytes, memo: list[Any]) -> tuple[str, int, Literal["C", "F"]]:
        """Dtype, item size and order; an item size of 0 for a dtype that no update may hold."""
        slot = int.from_bytes(rest[1:-1], "little")
        symbol = memo[slot] if slot < len(memo) else None
        if type(symbol) is not DType or symbol.name not in ITEMSIZES:
            return "", 0, "C"
        self._dtypes.setdefault(symbol.name, symbol)
        order: Literal["C", "F"] = "F" if rest[-1] == op.NEWTRUE else "C"
        self._rests[rest] = found = (symbol.name, ITEMSIZES[symbol.name], order)
        return found
