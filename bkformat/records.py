"""The fast path of stage 3: runs of array records, as picklers write them one after another.

One compiled expression reads all of a record up to its payload; what repeats from record to record
is compared. `record_forms` says what records look like.

It is an accelerator alone: a record that differs in any byte, and anything wrong, is left for the
slow path, which reads it from its first byte. A property test holds the two together.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import prod
from typing import Any, Literal, NamedTuple

from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.opcodes import op
from bkformat.record_forms import (
    LONGEST_HEAD,
    MOST_PUTS,
    PUTS,
    Names,
    decode_shape,
    payload_length,
    record_form,
)
from bkformat.stream import OpcodeStream, Span, Window
from bkformat.symbols import DType, Pair, PyTuple

__all__ = ["RecordReader", "Run"]

_WINDOW = 1 << 16
"""Bytes looked at in one go; payloads that reach past them are stepped over."""


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
        opcode: index in the buffer of the opcode that names the payload.
        start: index of the payload.
        padding: bytes of its version where that is a padded LONG1, else b"".
        rest: the opcodes that fetch the dtype and say the order; the next record may have the same.
    """

    spec: _Spec
    opcode: int
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
        "_arguments", "_dtypes", "_fetched", "_form", "_opcodes", "_puts", "_rest", "_specs",
    )  # fmt: skip

    def __init__(self, names: Names, arguments: tuple[PyTuple, PyTuple], put: int) -> None:
        self._form = record_form(names, put)
        self._puts = PUTS[put]
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
        code, width, last = puts.code, puts.width, puts.last - MOST_PUTS
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
                middle = find(mark, at, at + LONGEST_HEAD)
                shape = buffer[at:middle] if middle > 0 else b""
                spec = specs.get(shape) or self._spec(shape, rest, memo)
                middle += len(mark)
                if spec is not None and startswith(spec.length, middle):
                    start = middle + len(spec.length)
            if not start or spec is None:
                head = self._head(buffer, index, end, slot, memo)
                if head is None:
                    break
                spec, _, start, padding, rest = head
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
        if record is None or (puts.width and slot > puts.last - MOST_PUTS):
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
        return _Head(spec, record.end("rest"), record.end(), padding or b"", rest)

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
            if not index or len(buffer) - index > LONGEST_HEAD or not stream.beyond(window):
                return None
            stream.enter(window, stream.frame_end)
            return stream.peek(base + index, _WINDOW)
        spec, opcode, start, padding, _ = head
        length = _WINDOW if spec.nbytes < _WINDOW else _WINDOW // 16
        passed = stream.past_payload(base + opcode, base + start + spec.nbytes, length)
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
        dims = decode_shape(shape)
        dtype, itemsize, order = self._fetched.get(rest) or self._fetch(rest, memo)
        writes = self._puts.code
        if dims is None or not itemsize or (writes and bare is bool(dims)):
            return None
        if order == "F" and len(dims) < 2:
            return None
        nbytes = prod(dims) * itemsize
        puts = MOST_PUTS - (not dims) if writes else 0
        opcodes = self._opcodes + len(dims) + (len(dims) > 3) + puts
        values = (dims, dtype, order, nbytes, payload_length(nbytes), puts, opcodes)
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
