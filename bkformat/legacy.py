r"""Protocol 2, as numpy 1.16 and Python 2 wrote it: read for repair alone, never for a verdict.

    form A   Python 2: bytes and texts are SHORT_BINSTRING and BINSTRING; large ints INT
    form B   Python 3: bytes are _codecs.encode(text, "latin1") of a BINUNICODE, so each byte from
             0x80 on takes two; no bytes at all are __builtin__.bytes()

Everything else is as in protocol 3, on the same stack of symbols and with the same limits.
Source: Lib/pickle.py, save_bytes; numpy ndarray.__reduce__.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from bkformat import rules
from bkformat.allowed import ALLOWED_GLOBALS
from bkformat.findings import Rejected, quoted
from bkformat.opcodes import legacy_op, op
from bkformat.source import Source
from bkformat.stream import MAX_TEXT, PROTOCOL_3, OpcodeStream, Span, table_of
from bkformat.symbolic import HANDLERS, REDUCERS, SymbolicUnpickler
from bkformat.symbols import DType, Global, PyTuple

__all__ = ["LegacyUnpickler", "decoded_blocks"]

_BLOCK = 1 << 20
_MAX_DIGITS = 20


class TextSpan(NamedTuple):
    """A text of the file that is named but not read: offset from its start, and bytes there."""

    offset: int
    nbytes: int


def _skip_string8(stream: OpcodeStream) -> Span:
    offset = stream.offset - 1
    return stream.skip(stream.take(1)[0], offset)


def _skip_string32(stream: OpcodeStream) -> Span:
    offset = stream.offset - 1
    return stream.skip(int.from_bytes(stream.take(4), "little"), offset)


def _skip_text32(stream: OpcodeStream) -> TextSpan:
    return TextSpan(*_skip_string32(stream))


def _decimal(stream: OpcodeStream) -> int | bool:
    offset = stream.offset - 1
    line = bytearray()
    while (byte := stream.take(1)) != b"\n":
        line += byte
        if len(line) > _MAX_DIGITS:
            raise Rejected(rules.INTEGER_TOO_LARGE, offset, "an integer of more than 64 bits")
    if bytes(line) in (b"00", b"01"):  # the truth values of protocols 0 and 1
        return line.endswith(b"1")
    if not re.fullmatch(rb"-?[0-9]+", line) or not -(2**63) <= int(line) < 2**63:
        raise Rejected(rules.UNREADABLE_TEXT, offset, f"the integer {quoted(bytes(line))[1:]}")
    return int(line)


_LATER = (op.BINBYTES, op.SHORT_BINBYTES)
_PROTOCOL_2 = {
    **{code: read for code, read in PROTOCOL_3.items() if code not in _LATER},
    legacy_op.SHORT_BINSTRING: _skip_string8,
    legacy_op.BINSTRING: _skip_string32,
    op.BINUNICODE: _skip_text32,
    legacy_op.INT: _decimal,
}

_ENCODE = Global("_codecs", "encode", "encode")
_BYTES = Global("__builtin__", "bytes", "bytes")


class LegacyUnpickler(SymbolicUnpickler):
    """Runs one stream of protocol 2.

    Attributes:
        encoded: of each payload that is a text in the file, by its offset: bytes of the text.
    """

    _tables: ClassVar = {2: table_of(_PROTOCOL_2)}
    _globals: ClassVar = {
        **ALLOWED_GLOBALS,
        ("_codecs", "encode"): _ENCODE,
        ("__builtin__", "bytes"): _BYTES,
    }

    def __init__(self, source: Source, offset: int, **options: Any) -> None:
        super().__init__(source, offset, **{**options, "fast": False})
        self.encoded: dict[int, int] = {}
        self._lengths: dict[TextSpan, int] = {}

    def _encode(self, values: tuple[Any, ...], offset: int) -> Span:
        if len(values) != 2 or type(values[0]) is not TextSpan or self._text(values[1]) != "latin1":
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, "encode without (text, 'latin1')")
        text = values[0]
        if text not in self._lengths:  # one text can be fetched a thousand times
            self._lengths[text] = self._decoded_length(text)
        return Span(text.offset, self._lengths[text])

    def _decoded_length(self, text: TextSpan) -> int:
        nbytes = 0
        for block in _decoded(self._source, text):
            if block is None:
                self._reject(rules.UNREADABLE_TEXT, text.offset, "a text that is not latin1")
            nbytes += len(block)
        if nbytes != text.nbytes:
            self.encoded[text.offset] = text.nbytes
        return nbytes

    def _no_bytes(self, values: tuple[Any, ...], offset: int) -> Span:
        if values:
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, "bytes with an argument")
        return Span(offset, 0)

    def _dtype(self, values: tuple[Any, ...], offset: int) -> DType:
        if values[1:] in ((0, 1), (False, True)) and values:
            values = (self._text(values[0]), False, True)
        return super()._dtype(values, offset)

    def _build(self, argument: None, offset: int) -> None:
        state = self._pop(offset)
        if self.stack and type(self.stack[-1][0]) is DType and type(state) is PyTuple:
            values = tuple(self._text(value) for value in state.values)
            state = PyTuple(values, state.depth, state.offsets)
        self.stack.append((state, offset))
        super()._build(argument, offset)

    def _text(self, value: Any) -> Any:
        """A short text as such; anything else as it is."""
        if type(value) not in (Span, TextSpan) or value.nbytes > MAX_TEXT:
            return value
        data = self._source.read_at(value.offset, value.nbytes)
        return data.decode("ascii") if data.isascii() else value

    _reducers: ClassVar = {**REDUCERS, "encode": _encode, "bytes": _no_bytes, "dtype": _dtype}
    _handlers: ClassVar = {
        **HANDLERS,
        legacy_op.SHORT_BINSTRING: None,  # pushed as it is
        legacy_op.BINSTRING: None,  # pushed as it is
        legacy_op.INT: None,  # pushed as it is
        op.BUILD: _build,
    }


def _decoded(source: Source, text: TextSpan) -> Iterator[bytes | None]:
    """The bytes that latin1 makes of a utf-8 text, in blocks; None where it can't."""
    left = b""
    for at in range(text.offset, text.offset + text.nbytes, _BLOCK):
        data = left + source.read_at(at, min(_BLOCK, text.offset + text.nbytes - at))
        # A sequence may be cut by the end of a block.
        left = data[-1:] if data[-1:] in (b"\xc2", b"\xc3") else b""
        data = data[: len(data) - len(left)]
        try:
            yield data.decode("utf-8").encode("latin1")
        except UnicodeError:
            yield None
            return
    if left:
        yield None


def decoded_blocks(source: Source, offset: int, nbytes: int) -> Iterator[bytes]:
    """The payload that is written as a text of so many bytes at `offset`."""
    for block in _decoded(source, TextSpan(offset, nbytes)):
        yield block or b""
