r"""The fast path of stage 3: runs of array records, as picklers write them one after another.

An array record has a fixed opcode run; only the shape, the dtype's memo slot, the order and the
payload vary. In form E (protocol 4), with MEMOIZE written as p:

    h. h. K00 \x85 p h. \x87 p R p ( K01   shape p   h. \x88|\x89 C.   payload   p t p b

In forms C and D each p is BINPUT or LONG_BINPUT with the next index. In the canonical form there is
none, the arguments may come from the memo as a whole, and K01 is a LONG1 padded with zeros. One
compiled expression reads all up to the payload; what repeats from record to record is compared.

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

_MOST_PUTS = 6
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


class _Puts(NamedTuple):
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


def _puts(code: bytes, index: str) -> _Puts:
    texts = f"<1s{index}", f"<8s{index}4s{index}2s{index}3s", f"<1s{index}2s{index}1s"
    return _Puts(code, struct.calcsize(f"<{index}"), *map(struct.Struct, texts))


NO_PUT = 0
"""Stands for an opcode where records write nothing to the memo."""

_PUTS = {
    NO_PUT: _puts(b"", ""),
    op.MEMOIZE: _puts(b"\x94", ""),
    op.BINPUT: _puts(b"q", "B"),
    op.LONG_BINPUT: _puts(b"r", "I"),
}


class _Form(NamedTuple):
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
def _form(names: Names, put: int) -> _Form:
    puts = _PUTS[put]
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
        + rb"((?:h.|j....)[\x88\x89])(?:C(.)|B(....))"
    )  # fmt: skip
    pattern = re.compile(text, re.DOTALL)
    return _Form(pattern, (parts[0], parts[1], parts[2], b"(K\x01"), starts)


def _get(slot: int) -> bytes:
    return b"h" + bytes([slot])


class _Spec(NamedTuple):
    """What the shape, dtype and order of a record say.

    Attributes:
        dims, dtype, order: of the array.
        nbytes: of its payload.
        length: the payload's opcode and length as picklers write them.
        puts: memo entries that a record writes.
        opcodes: of a record.
    """

    dims: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"]
    nbytes: int
    length: bytes
    puts: int
    opcodes: int


def _length(nbytes: int) -> bytes:
    """What stands before a payload; past 4 GiB it is another opcode, which no record here has."""
    if nbytes < 256:
        return _SHORT[nbytes]
    return b"B" + (nbytes & 0xFFFF_FFFF).to_bytes(4, "little")


_SHORT = [b"C" + bytes([nbytes]) for nbytes in range(256)]
_IS_SHAPE = re.compile(_SHAPE, re.DOTALL).fullmatch

# Every second byte of the shapes whose dimensions are below 256 and can't overflow, by length.
_FEW = {1: b")", 3: b"K\x85", 5: b"KK\x86", 7: b"KKK\x87"}
_MORE = {2 + 2 * rank: b"K" * rank + b"t" for rank in range(4, 8)}


def _decode_shape(text: bytes) -> tuple[int, ...] | None:
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


class _Head(NamedTuple):
    """The start of one record, up to its payload.

    Attributes:
        spec: what it says.
        start: index of the payload in the buffer.
        padding: bytes of its version where that is a padded LONG1, else b"".
        rest: the opcodes that fetch the dtype and say the order; the next record may have the same.
    """

    spec: _Spec
    start: int
    padding: bytes
    rest: bytes


class RecordReader:
    """Reads runs of records whose names come from the same memo slots.

    Args:
        names: where the names are.
        arguments: what the first two slots of every record hold: (0,) and (ndarray, (0,), b"b").
        put: the opcode that writes the memo, or NO_PUT.
    """

    __slots__ = (
        "_arguments",
        "_dtypes",
        "_fetched",
        "_form",
        "_opcodes",
        "_puts",
        "_rest",
        "_specs",
    )

    def __init__(self, names: Names, arguments: tuple[PyTuple, PyTuple], put: int) -> None:
        self._form = _form(names, put)
        self._puts = _PUTS[put]
        self._opcodes = 15 if names.arguments is None else 11
        self._arguments = arguments
        self._specs: dict[bytes, dict[bytes, _Spec]] = {b"": {}}
        self._rest = b""
        self._fetched: dict[bytes, tuple[str, int, Literal["C", "F"]]] = {}
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

    def _read_window(  # noqa: C901  (calls would double its time)
        self, stream: OpcodeStream, window: Window, memo: list[Any], run: Run, room: int
    ) -> Window:
        """Read the records that lie wholly in the window; it is returned at the first that is not.

        A record that differs from the last in its shape, its payload and its memo indexes alone
        is taken apart here; any other by the expression.
        """
        buffer, base, index, cut = window
        end = stream.limit(window)
        find, startswith = buffer.find, buffer.startswith
        new = tuple.__new__  # half the time of ArrayLayout(...)
        keep = stream.structure.append if stream.keeps_structure else None
        form, puts, pairs = self._form, self._puts, run.pairs
        code, width, last = puts.code, puts.width, puts.last - _MOST_PUTS
        write_of, head_of, tail_of = puts.write.pack, puts.head.pack, puts.tail.pack
        starts, (one, two, three, four) = form.starts, form.parts
        before = sum(map(len, form.parts)) + 3 * width
        tail, between = puts.tail_from(0), b"t" + code
        behind = len(tail)
        slot, opcodes, long_ones = run.stop, 0, 0
        rest, specs = self._rest, self._specs[self._rest]
        mark = code + rest
        for _ in range(room - len(pairs)):
            at, start, padding = index + before, 0, None
            if not width:
                padding = starts.get(buffer[index:at])
                if padding and startswith(padding, at):
                    at += len(padding)
                elif padding:
                    break
            elif slot > last:
                break
            elif buffer[index:at] == head_of(one, slot, two, slot + 1, three, slot + 2, four):
                padding, mark = b"", write_of(code, slot + 3) + rest
            if padding is not None and rest:
                middle = find(mark, at, at + _LONGEST_HEAD)
                shape = buffer[at:middle] if middle > 0 else b""
                spec = specs.get(shape) or self._spec(shape, rest, memo)
                middle += len(mark)
                if spec is not None and startswith(spec.length, middle):
                    start = middle + len(spec.length)
            if not start or spec is None:
                head = self._head(buffer, index, end, slot, memo)
                if head is None:
                    break
                spec, start, padding, rest = head
                specs, mark = self._specs[rest], code + rest
            dims, dtype, order, nbytes, _, entries, count = spec
            stop = start + nbytes
            after = stop + behind
            if width:
                tail = tail_of(code, slot + entries - 2, between, slot + entries - 1, b"b")
            if after > end or buffer[stop:after] != tail:
                break
            pairs.append(
                (new(ArrayLayout, (dtype, dims, order, base + start, nbytes)), base + index)
            )
            if keep is not None:
                keep((base + cut, buffer[cut:start]))
            slot += entries
            opcodes += count
            if padding:
                long_ones += 1
            cut, index = stop, after
        self._rest = rest
        run.stop = slot
        run.opcodes += opcodes
        run.long_ones += long_ones
        return Window(buffer, base, index, cut)

    def _head(
        self, buffer: bytes, index: int, end: int, slot: int, memo: list[Any]
    ) -> _Head | None:
        """Read the start of any record of the form; None where the slow path must look."""
        puts = self._puts
        record = self._form.pattern.match(buffer, index, end)
        if record is None or (puts.width and slot > puts.last - _MOST_PUTS):
            return None
        padding, shape, put, rest, short, long = record.groups()
        nbytes = short[0] if short else int.from_bytes(long, "little")
        spec = self._spec(shape, rest, memo, bare=put is None)
        if spec is None or nbytes != spec.nbytes:
            return None
        if padding is not None and padding[0] != len(padding) - 1:
            return None
        if puts.width and not self._in_sequence(buffer, index, put, slot):
            return None
        return _Head(spec, record.end(), padding or b"", rest)

    def _in_sequence(self, buffer: bytes, index: int, put: bytes | None, slot: int) -> bool:
        """Whether the memo writes of the record at `index` go to `slot` and on."""
        puts, (one, two, three, _) = self._puts, self._form.parts
        start = puts.head.pack(one, slot, two, slot + 1, three, slot + 2, b"")[:-3]
        if not buffer.startswith(start, index):
            return False
        return put is None or int.from_bytes(put, "little") == slot + 3

    def _next_window(
        self, stream: OpcodeStream, window: Window, memo: list[Any], run: Run, room: int
    ) -> Window | None:
        """Where to go on: at the same record with more bytes behind it, or past a large payload.

        None where the slow path must look.
        """
        buffer, base, index, _ = window
        if len(run.pairs) >= room:
            return None
        head = self._head(buffer, index, len(buffer), run.stop, memo)
        if head is None:
            if not index or len(buffer) - index > _LONGEST_HEAD or not stream.beyond(window):
                return None
            stream.enter(window, stream.frame_end)
            return stream.peek(base + index, _WINDOW)
        spec, start, padding, _ = head
        length = _WINDOW if spec.nbytes < _WINDOW else _WINDOW // 16
        opcode = base + start - len(spec.length)
        passed = stream.past_payload(opcode, base + start + spec.nbytes, length)
        if passed is None:
            return None
        following, frame_end = passed
        tail = self._puts.tail_from(run.stop + spec.puts - 2)
        after = following.at + len(tail)
        if after > stream.limit(following, frame_end):
            return None
        if not following.buffer.startswith(tail, following.at):
            return None
        found = ArrayLayout(spec.dtype, spec.dims, spec.order, base + start, spec.nbytes)
        run.pairs.append((found, base + index))
        run.stop += spec.puts
        run.opcodes += spec.opcodes
        run.long_ones += bool(padding)
        stream.enter(window._replace(at=start), frame_end)
        return following._replace(at=after)

    def _spec(
        self, shape: bytes, rest: bytes, memo: list[Any], *, bare: bool = False
    ) -> _Spec | None:
        """What these opcodes of a record say; None where the slow path must look.

        `bare` where no memo write follows the shape, as is right for () alone. What is kept was
        followed by one, if records write to the memo; memo slots never change.
        """
        specs = self._specs.get(rest) or self._specs.setdefault(rest, {})
        if not bare and shape in specs:
            return specs[shape]
        dims = _decode_shape(shape)
        dtype, itemsize, order = self._fetched.get(rest) or self._fetch(rest, memo)
        writes = self._puts.code
        if dims is None or not itemsize or (writes and bare is bool(dims)):
            return None
        if order == "F" and len(dims) < 2:
            return None
        nbytes = prod(dims) * itemsize
        puts = _MOST_PUTS - (not dims) if writes else 0
        opcodes = self._opcodes + len(dims) + (len(dims) > 3) + puts
        values = (dims, dtype, order, nbytes, _length(nbytes), puts, opcodes)
        spec: _Spec = tuple.__new__(_Spec, values)  # half the time of _Spec(...)
        if dims or not writes:
            specs[shape] = spec
        return spec

    def _fetch(self, rest: bytes, memo: list[Any]) -> tuple[str, int, Literal["C", "F"]]:
        """Dtype, item size and order; an item size of 0 for a dtype that no update may hold."""
        slot = int.from_bytes(rest[1:-1], "little")
        symbol = memo[slot] if slot < len(memo) else None
        if type(symbol) is not DType or symbol.name not in ITEMSIZES:
            return "", 0, "C"
        self._dtypes.setdefault(symbol.name, symbol)
        order: Literal["C", "F"] = "F" if rest[-1] == op.NEWTRUE else "C"
        self._fetched[rest] = found = (symbol.name, ITEMSIZES[symbol.name], order)
        return found
