"""Stage 2: bytes -> opcodes, one at a time, from a closed table with limits; no meaning.

    code   opcode                          argument here
    4E 88 89 28 2E 29 5D 7D 61 65 ...      none (NONE, NEWTRUE, NEWFALSE, MARK, STOP, ...)
    4B 4D 4A   BININT1, BININT2, BININT    int: u8, u16, i32
    8A         LONG1                       int: u8 length, two's complement; must fit in 64 bits
    47         BINFLOAT                    float: big-endian f64
    58 8C      BINUNICODE, SHORT_          str: u32 or u8 length; short printable ASCII only
    43 42 8E   SHORT_BINBYTES, BINBYTES, 8 Span: u8, u32 or u64 length; the bytes are never read
    63         GLOBAL                      (module, name): two lines
    71 72 68 6A  BINPUT, LONG_BINPUT, BINGET, LONG_BINGET   int: u8 or u32
    95         FRAME                       u64 length; handled here, never handed on

Each protocol has one table; what is not in it is refused. Every argument is bounded before it is
believed: present, within limits, inside the file, decoded. An opcode lies wholly in one frame or
wholly outside, because the C and the Python unpickler disagree about everything else.
Source: Lib/pickletools.py; Modules/_pickle.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from bkformat import rules
from bkformat.findings import Rejected, quoted
from bkformat.opcodes import OTHER_NAMES, op
from bkformat.rules import Rule
from bkformat.source import Source

__all__ = ["OpcodeStream", "Span", "Window"]

MAX_TEXT = 256
MAX_GLOBAL_LINE = 128
OPCODES_AT_FIRST = 100_000
OPCODES_PER_ARRAY = 64
"""numpy writes 23 opcodes an array, 47 with a new dtype; 32 dimensions add 32."""

_SMALLEST_WINDOW = 4096
_LARGEST_WINDOW = 1 << 18


class Span(NamedTuple):
    """Bytes of the file that are named but not read: offset from its start, and how many."""

    offset: int
    nbytes: int


class Window(NamedTuple):
    """A piece of the file in memory.

    Attributes:
        buffer: the bytes.
        base: offset of buffer[0] from the start of the file.
        at: index of the next byte to read, in the buffer.
        cut: index of the first byte that is not in `OpcodeStream.structure` yet, in the buffer.
    """

    buffer: bytes
    base: int
    at: int
    cut: int


class OpcodeStream:
    """Reads the pickle that begins at `offset`.

    Attributes:
        protocol: 3 or 4.
        opcodes: how many were read.
        opcode_budget: how many may be read; grows with each array that is finished.
        frame_end: offset at which the current frame ends, 0 outside frames.
        frames: how many frames were seen, not counting those that a fast path stepped into.
        keeps_structure: whether `structure` is kept.
        structure: the bytes outside spans so far, as (offset, bytes), in the order of the file.
    """

    __slots__ = (
        "_base", "_buffer", "_cut", "_index", "_nbytes", "_source", "_table", "_window",
        "frame_end", "frames", "keeps_structure", "opcode_budget", "opcodes", "protocol",
        "structure",
    )  # fmt: skip

    def __init__(
        self,
        source: Source,
        offset: int,
        *,
        keep_structure: bool = True,
        tables: Mapping[int, Table] | None = None,
    ) -> None:
        self.keeps_structure = keep_structure
        self._source = source
        self._nbytes = source.nbytes
        self._base = offset
        self._buffer = b""
        self._index = 0
        self._cut = 0
        self._window = _SMALLEST_WINDOW
        self.structure: list[tuple[int, bytes]] = []
        self.frame_end = 0
        self.frames = 0
        self.opcodes = 0
        self.opcode_budget = OPCODES_AT_FIRST
        known = TABLES if tables is None else tables
        self.protocol = self._read_protocol(known)
        self._table = known[self.protocol]

    @property
    def offset(self) -> int:
        """Bytes from the start of the file to what is read next."""
        return self._base + self._index

    def __iter__(self) -> Iterator[tuple[int, Any, int]]:
        """The opcodes up to the end of the file: code, argument and offset of each.

        Whoever moves the stream by `resume` may do so after BUILD alone: in between, the position
        is kept in local names, because this loop is what reading a file costs.

        Raises:
            Rejected: BK206, BK207, BK209 to BK213, BK218 to BK221.
        """
        table = self._table
        buffer, index, base, size = b"", 0, 0, -1
        while True:
            if index >= size:  # the window was used up, or moved
                if self._index >= len(self._buffer):
                    self.fill(1)
                buffer, index, base = self._buffer, self._index, self._base
                size = len(buffer)
            offset = base + index
            if offset == self.frame_end:
                self.frame_end = 0
            code = buffer[index]
            reader = table[code]
            argument = None
            if reader is _bare:
                self._index = index = index + 1
            elif reader is _u8 and index + 1 < size:
                argument = buffer[index + 1]
                self._index = index = index + 2
            elif reader is None:
                self._enter_frame(code)
                size = -1
                continue
            else:
                self._index = index + 1
                argument = reader(self)
                size = -1
            if self.frame_end and self._base + self._index > self.frame_end:
                message = f"an opcode crosses the frame's end at {self.frame_end:,}"
                self._reject(rules.FRAME_STRADDLED, offset, message)
            self.opcodes += 1
            if self.opcodes > self.opcode_budget:
                message = f"more than {self.opcode_budget:,} opcodes"
                self._reject(rules.LIMIT_EXCEEDED, offset, message)
            yield code, argument, offset
            if code == op.BUILD:
                size = -1

    def take(self, length: int) -> bytes:
        """The next `length` bytes; at most a few hundred."""
        end = self._index + length
        if end > len(self._buffer):
            self.fill(length)
            end = length
        taken = self._buffer[self._index : end]
        self._index = end
        return taken

    def fill(self, length: int) -> None:
        """Move the window so that it begins at the next byte and holds at least `length` bytes."""
        offset = self._base + self._index
        left = self._nbytes - offset
        if left < length:
            self._truncated()
        self._keep_structure()
        self._buffer = self._source.read_at(offset, min(left, max(length, self._window)))
        self._base, self._index, self._cut = offset, 0, 0
        self._window = min(self._window * 2, _LARGEST_WINDOW)

    def _truncated(self) -> NoReturn:
        self._reject(rules.TRUNCATED_STREAM, self._nbytes, "the file ends inside the pickle")

    def skip(self, nbytes: int, offset: int) -> Span:
        """Step over the bytes that the opcode at `offset` names; they are not read."""
        span = Span(self._base + self._index, nbytes)
        left = self._nbytes - span.offset
        if nbytes > left:
            self._reject(
                rules.LENGTH_PAST_END,
                offset,
                f"the file ends too early: {nbytes:,} bytes are announced, {left:,} are left",
            )
        self._keep_structure()
        self._index += nbytes
        if self._index > len(self._buffer):
            self._base, self._buffer, self._index = span.offset + nbytes, b"", 0
            self._window = _SMALLEST_WINDOW
        self._cut = self._index
        return span

    def finish(self, offset: int) -> None:
        """Account for the end: STOP, at `offset`, is the last byte of the file."""
        after = self._nbytes - offset - 1
        if after:
            what = "1 byte follows" if after == 1 else f"{after:,} bytes follow"
            self._reject(rules.TRAILING_BYTES, offset + 1, f"{what} the end of the pickle")
        self._keep_structure()

    def window(self) -> Window:
        """What a fast path may look at, from the next byte on."""
        return Window(self._buffer, self._base, self._index, self._cut)

    def peek(self, offset: int, length: int) -> Window:
        """A window that begins at `offset` and is as long as the file allows; nothing moves."""
        length = min(length, self._nbytes - offset)
        return Window(self._source.read_at(offset, length), offset, 0, 0)

    def limit(self, window: Window, frame_end: int | None = None) -> int:
        """Index in the window's buffer that no opcode may cross: its end or the frame's."""
        frame_end = self.frame_end if frame_end is None else frame_end
        if frame_end:
            return min(len(window.buffer), frame_end - window.base)
        return len(window.buffer)

    def past_payload(self, opcode: int, stop: int, length: int) -> tuple[Window, int] | None:
        """What follows a payload that ends at `stop`, and the end of the frame there.

        Args:
            opcode: offset of the opcode that names the payload.
            stop: offset of the first byte after the payload.
            length: bytes wanted.

        Returns:
            A window whose index is past a FRAME that begins at `stop`, as picklers write one after
            a large payload; None where the file ends or frames do not lie as picklers lay them.
        """
        if stop >= self._nbytes:
            return None
        window = self.peek(stop, length)
        if opcode != self.frame_end:
            inside = not self.frame_end or stop < self.frame_end
            return (window, self.frame_end) if inside else None
        if window.buffer[0] != op.FRAME:
            return window, 0
        frame = int.from_bytes(window.buffer[1:9], "little")
        frame_end = stop + 9 + frame
        if not frame or frame_end > self._nbytes or len(window.buffer) < 9:
            return None
        return window._replace(at=9), frame_end

    def enter(self, window: Window, frame_end: int) -> None:
        """Leave a window for good at its index, for a frame that ends at `frame_end`."""
        self.frame_end = frame_end
        self._buffer, self._base, self._index, self._cut = window
        self._keep_structure()

    def beyond(self, window: Window) -> bool:
        """Whether the file, or the current frame, goes on past the window's end."""
        return (self.frame_end or self._nbytes) > window.base + len(window.buffer)

    def resume(self, window: Window, opcodes: int) -> None:
        """Go on at `window.at`, after a fast path read that many opcodes."""
        self._buffer, self._base, self._index, self._cut = window
        self.opcodes += opcodes

    def _keep_structure(self) -> None:
        if self.keeps_structure and self._index > self._cut:
            piece = self._buffer[self._cut : self._index]
            self.structure.append((self._base + self._cut, piece))

    def _enter_frame(self, code: int) -> None:
        """Step over FRAME and its length, and note where the frame ends."""
        offset = self.offset
        if code != op.FRAME or self.protocol < 4:
            name = OTHER_NAMES.get(code, "unknown opcode")
            self._reject(rules.FORBIDDEN_OPCODE, offset, f"{name} (0x{code:02x})")
        self._index += 1
        length = int.from_bytes(self.take(8), "little")
        if self.frame_end:
            self._reject(rules.FRAME_NESTED, offset, "a frame begins inside another")
        if not length:
            self._reject(rules.FRAME_EMPTY, offset, "a frame of no bytes")
        left = self._nbytes - self.offset
        if length > left:
            message = f"the file ends too early: a frame of {length:,} bytes with {left:,} left"
            self._reject(rules.FRAME_PAST_END, offset, message)
        self.frame_end = self.offset + length
        self.frames += 1

    def _read_protocol(self, known: Mapping[int, Table]) -> int:
        offset = self.offset
        first = self.take(1)[0]
        if first != op.PROTO:
            # Protocols 0 and 1 have no PROTO opcode; numpy's begin with GLOBAL 'numpy.core...'.
            textual = first in (op.GLOBAL, op.MARK, op.EMPTY_LIST, op.EMPTY_DICT)
            rule = rules.TEXT_PROTOCOL if textual else rules.NOT_A_PICKLE
            what = "a pickle of protocol 0 or 1" if textual else f"0x{first:02x} begins no pickle"
            self._reject(rule, offset, what)
        protocol = self.take(1)[0]
        if protocol not in known:
            rule = _REFUSED_PROTOCOLS.get(protocol, rules.NOT_A_PICKLE)
            self._reject(rule, offset, f"pickle protocol {protocol}")
        return protocol

    def _reject(self, rule: Rule, offset: int, message: str) -> NoReturn:
        raise Rejected(rule, offset, message)


# --- arguments -------------------------------------------------------------------------------


def _bare(stream: OpcodeStream) -> None:
    """An opcode without an argument; `OpcodeStream.read` knows it by identity."""


def _u8(stream: OpcodeStream) -> int:
    """An argument of one byte; `OpcodeStream.read` knows it by identity."""
    return stream.take(1)[0]


def _u16(stream: OpcodeStream) -> int:
    return int.from_bytes(stream.take(2), "little")


def _i32(stream: OpcodeStream) -> int:
    return int.from_bytes(stream.take(4), "little", signed=True)


def _u32(stream: OpcodeStream) -> int:
    return int.from_bytes(stream.take(4), "little")


def _u64(stream: OpcodeStream) -> int:
    return int.from_bytes(stream.take(8), "little")


def _long1(stream: OpcodeStream) -> int:
    offset = stream.offset - 1
    value = int.from_bytes(stream.take(_u8(stream)), "little", signed=True)
    if not -(2**63) <= value < 2**63:
        raise Rejected(rules.INTEGER_TOO_LARGE, offset, "an integer of more than 64 bits")
    return value


def _long4(stream: OpcodeStream) -> NoReturn:
    offset = stream.offset - 1
    raise Rejected(rules.INTEGER_TOO_LARGE, offset, "an integer of more than 255 bytes (LONG4)")


def _f64(stream: OpcodeStream) -> float:
    value: float = struct.unpack(">d", stream.take(8))[0]
    return value


_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_GLOBAL_LINE = re.compile(rb"[A-Za-z_][A-Za-z0-9_.]*")


def _text(stream: OpcodeStream, length: int, offset: int) -> str:
    if length > MAX_TEXT:
        raise Rejected(rules.UNREADABLE_TEXT, offset, f"a text of {length:,} bytes")
    text = stream.take(length)
    if not _PRINTABLE.fullmatch(text):
        raise Rejected(rules.UNREADABLE_TEXT, offset, f"the text {quoted(text)[1:]}")
    return text.decode("ascii")


def _text8(stream: OpcodeStream) -> str:
    offset = stream.offset - 1
    return _text(stream, _u8(stream), offset)


def _text32(stream: OpcodeStream) -> str:
    offset = stream.offset - 1
    return _text(stream, _u32(stream), offset)


def _bytes8(stream: OpcodeStream) -> Span:
    offset = stream.offset - 1
    return stream.skip(_u8(stream), offset)


def _bytes32(stream: OpcodeStream) -> Span:
    offset = stream.offset - 1
    return stream.skip(_u32(stream), offset)


def _bytes64(stream: OpcodeStream) -> Span:
    offset = stream.offset - 1
    return stream.skip(_u64(stream), offset)


def _line(stream: OpcodeStream, offset: int) -> str:
    line = bytearray()
    while (byte := stream.take(1)) != b"\n":
        line += byte
        if len(line) > MAX_GLOBAL_LINE:
            raise Rejected(rules.GLOBAL_NAME, offset, f"a name of over {MAX_GLOBAL_LINE} bytes")
    if not _GLOBAL_LINE.fullmatch(line):
        raise Rejected(rules.GLOBAL_NAME, offset, f"the name {quoted(bytes(line))[1:]}")
    return line.decode("ascii")


def _global(stream: OpcodeStream) -> tuple[str, str]:
    offset = stream.offset - 1
    return _line(stream, offset), _line(stream, offset)


Reader = Callable[[OpcodeStream], Any]
Table = list["Reader | None"]
"""For each opcode what reads its argument, or None where it is forbidden."""

PROTOCOL_3: dict[int, Reader] = {
    op.MARK: _bare,
    op.EMPTY_TUPLE: _bare,
    op.STOP: _bare,
    op.NONE: _bare,
    op.NEWTRUE: _bare,
    op.NEWFALSE: _bare,
    op.REDUCE: _bare,
    op.BUILD: _bare,
    op.EMPTY_LIST: _bare,
    op.APPEND: _bare,
    op.APPENDS: _bare,
    op.TUPLE: _bare,
    op.TUPLE1: _bare,
    op.TUPLE2: _bare,
    op.TUPLE3: _bare,
    op.EMPTY_DICT: _bare,  # read so that stage 3 can name the mistake
    op.BININT1: _u8,
    op.BININT2: _u16,
    op.BININT: _i32,
    op.LONG1: _long1,
    op.LONG4: _long4,
    op.BINFLOAT: _f64,
    op.BINUNICODE: _text32,
    op.SHORT_BINBYTES: _bytes8,
    op.BINBYTES: _bytes32,
    op.GLOBAL: _global,
    op.BINPUT: _u8,
    op.LONG_BINPUT: _u32,
    op.BINGET: _u8,
    op.LONG_BINGET: _u32,
}

_PROTOCOL_4: dict[int, Reader] = {
    **PROTOCOL_3,
    op.SHORT_BINUNICODE: _text8,
    op.BINBYTES8: _bytes64,
    op.STACK_GLOBAL: _bare,
    op.MEMOIZE: _bare,
}


def table_of(readers: Mapping[int, Reader]) -> Table:
    return [readers.get(code) for code in range(256)]


TABLES: dict[int, Table] = {3: table_of(PROTOCOL_3), 4: table_of(_PROTOCOL_4)}
_REFUSED_PROTOCOLS = {
    0: rules.TEXT_PROTOCOL,
    1: rules.TEXT_PROTOCOL,
    2: rules.PROTOCOL_2,
    5: rules.PROTOCOL_5,
}
