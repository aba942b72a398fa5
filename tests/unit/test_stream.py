"""Stage 2: opcodes."""

from __future__ import annotations

import pickletools
import struct
from typing import Any

import pytest

from bkformat.findings import Rejected
from bkformat.opcodes import op
from bkformat.source import BytesSource
from bkformat.stream import OPCODES_AT_FIRST, OpcodeStream, Span

from .files import asm


def opcodes(stream: bytes, offset: int = 0) -> list[tuple[int, Any, int]]:
    return list(OpcodeStream(BytesSource(bytes(offset) + stream), offset))


def read_until_stop(stream: bytes, *, keep: bool = True) -> OpcodeStream:
    found = OpcodeStream(BytesSource(stream), 0, keep_structure=keep)
    for code, _, offset in found:
        if code == op.STOP:
            found.finish(offset)
            break
    return found


def refused(stream: bytes) -> tuple[str, int | None]:
    with pytest.raises(Rejected) as caught:
        read_until_stop(stream)
    return caught.value.finding.code, caught.value.finding.offset


@pytest.mark.parametrize(
    ("part", "code", "argument"),
    [
        (b"K\xff", op.BININT1, 255),
        (b"M\xff\xff", op.BININT2, 65535),
        (b"J\xff\xff\xff\xff", op.BININT, -1),
        (b"\x8a\x00", op.LONG1, 0),
        (b"\x8a\x01\xff", op.LONG1, -1),
        (b"\x8a\x0c\x01" + bytes(11), op.LONG1, 1),
        (b"\x8a\x08" + b"\xff" * 7 + b"\x7f", op.LONG1, 2**63 - 1),
        (b"G" + struct.pack(">d", 0.5), op.BINFLOAT, 0.5),
        (b"X\x02\0\0\0f4", op.BINUNICODE, "f4"),
        (b"C\x03abc", op.SHORT_BINBYTES, Span(4, 3)),
        (b"B\x03\0\0\0abc", op.BINBYTES, Span(7, 3)),
        (b"cnumpy\ndtype\n", op.GLOBAL, ("numpy", "dtype")),
        (b"q\x07", op.BINPUT, 7),
        (b"r\x07\1\0\0", op.LONG_BINPUT, 263),
        (b"h\x07", op.BINGET, 7),
        (b"j\xff\xff\xff\xff", op.LONG_BINGET, 2**32 - 1),
        (b"N", op.NONE, None),
    ],
)
@pytest.mark.parametrize("protocol", [3, 4])
def test_arguments(part: bytes, code: int, argument: object, protocol: int) -> None:
    stream = b"\x80" + bytes([protocol]) + part + b"."
    found = OpcodeStream(BytesSource(stream), 0)
    assert next(iter(found)) == (code, argument, 2)


@pytest.mark.parametrize(
    ("part", "code", "argument"),
    [
        (b"\x8c\x02f4", op.SHORT_BINUNICODE, "f4"),
        (b"\x8e\x01" + bytes(7) + b"a", op.BINBYTES8, Span(11, 1)),
        (b"\x94", op.MEMOIZE, None),
        (b"\x93", op.STACK_GLOBAL, None),
    ],
)
def test_arguments_of_protocol_4(part: bytes, code: int, argument: object) -> None:
    assert opcodes_until_end(b"\x80\x04" + part)[0] == (code, argument, 2)
    assert refused(b"\x80\x03" + part)[0] == "BK206"


def opcodes_until_end(stream: bytes) -> list[tuple[int, Any, int]]:
    found = []
    for triple in OpcodeStream(BytesSource(stream + b"."), 0):
        if triple[0] == op.STOP:
            break
        found.append(triple)
    return found


def test_the_tables_hold_no_other_opcode() -> None:
    """Every opcode that pickle has and an update needs not is refused, and every unused byte."""
    allowed = {code for name, code in vars(op).items() if name.isupper()} - {op.PROTO, op.FRAME}
    every = {ord(opcode.code): opcode.proto for opcode in pickletools.opcodes}
    for protocol in (3, 4):
        for code in range(256):
            stream = bytes([0x80, protocol, code]) + bytes(20)
            known = code in allowed and every[code] <= protocol
            try:
                next(iter(OpcodeStream(BytesSource(stream), 0)))
                verdict = "read"
            except Rejected as rejected:
                verdict = rejected.finding.code
            if code == op.FRAME and protocol == 4:
                assert verdict == "BK213"
            else:
                assert (verdict == "BK206") is not known, hex(code)


@pytest.mark.parametrize(
    ("stream", "code", "offset"),
    [
        (b"cnumpy\n", "BK201", 0),
        (b"(lp0\n", "BK201", 0),
        (b"\x80\x00.", "BK201", 0),
        (b"\x80\x02.", "BK202", 0),
        (b"\x80\x05.", "BK204", 0),
        (b"\x80\x06.", "BK205", 0),
        (b"\x00\x00", "BK205", 0),
        (b"\x80", "BK207", 1),
        (b"\x80\x03", "BK207", 2),
        (b"\x80\x03M\x01", "BK207", 4),
        (b"\x80\x03K", "BK207", 3),
        (b"\x80\x03N.N", "BK208", 4),
        (b"\x80\x03C\x02a", "BK209", 2),
        (b"\x80\x03B\xff\xff\xff\xffa", "BK209", 2),
        (b"\x80\x04\x8e" + b"\xff" * 8, "BK209", 2),
        (b"\x80\x04\x95" + struct.pack("<Q", 3) + b"N.", "BK210", 2),
        (b"\x80\x04\x95" + struct.pack("<Q", 1) + b"K\x01.", "BK211", 11),
        (
            b"\x80\x04\x95" + struct.pack("<Q", 10) + b"\x95" + struct.pack("<Q", 1) + b".",
            "BK212",
            11,
        ),
        (b"\x80\x04\x95" + bytes(8) + b".", "BK213", 2),
        (b"\x80\x03\x8a\x09" + bytes(8) + b"\x01.", "BK218", 2),
        (b"\x80\x03\x8b\x01\0\0\0\x01.", "BK218", 2),
        (b"\x80\x03X\x02\0\0\0\xc3\xa9.", "BK219", 2),
        (b"\x80\x03X\x01\x01\0\0" + b"a" * 257 + b".", "BK219", 2),
        (b"\x80\x03cnumpy \ndtype\n.", "BK220", 2),
        (b"\x80\x03c" + b"a" * 129 + b"\ndtype\n.", "BK220", 2),
        (b"\x80\x03c\ndtype\n.", "BK220", 2),
    ],
)
def test_faults(stream: bytes, code: str, offset: int) -> None:
    assert refused(stream) == (code, offset)


def test_a_frame_may_end_at_any_opcode_and_stop_may_lie_outside() -> None:
    stream = b"\x80\x04\x95" + struct.pack("<Q", 1) + b"N\x95" + struct.pack("<Q", 2) + b"K\x01."
    found = read_until_stop(stream)
    assert found.opcodes == 3
    assert found.frames == 2
    assert not read_until_stop(b"\x80\x04N.").frames


def test_the_number_of_opcodes_is_bounded() -> None:
    assert (
        read_until_stop(b"\x80\x03" + b"N" * (OPCODES_AT_FIRST - 1) + b".").opcodes
        == OPCODES_AT_FIRST
    )
    too_many = b"\x80\x03" + b"N" * OPCODES_AT_FIRST + b"."
    assert refused(too_many) == ("BK221", len(too_many) - 1)


def test_offsets_count_from_the_start_of_the_file() -> None:
    stream = OpcodeStream(BytesSource(bytes(100) + b"\x80\x03K\x01C\x01b."), 100)
    found = []
    for code, argument, offset in stream:
        found.append((code, argument, offset))
        if code == op.STOP:
            break
    assert found == [
        (op.BININT1, 1, 102),
        (op.SHORT_BINBYTES, Span(106, 1), 104),
        (op.STOP, None, 107),
    ]


@pytest.mark.parametrize("nbytes", [0, 1, 255, 4000, 4090, 4096, 70_000, 300_000])
def test_structure_and_payloads_are_the_whole_stream(nbytes: int) -> None:
    """Every byte is either read as structure or lies in a span."""
    payload = b"B" + struct.pack("<I", nbytes) + b"x" * nbytes
    stream = b"\x80\x03" + (b"K\x01M\x02\x00" * 700 + payload) * 3 + b"N" * 5000 + b"."
    found = OpcodeStream(BytesSource(stream), 0)
    spans = []
    for code, argument, offset in found:
        if type(argument) is Span:
            spans.append(argument)
        if code == op.STOP:
            found.finish(offset)
            break
    covered = bytearray(len(stream))
    for offset, piece in found.structure:
        assert stream[offset : offset + len(piece)] == piece
        covered[offset : offset + len(piece)] = b"\1" * len(piece)
    for span in spans:
        assert not any(covered[span.offset : span.offset + span.nbytes])
        covered[span.offset : span.offset + span.nbytes] = b"\1" * span.nbytes
    assert all(covered)
    assert [span.nbytes for span in spans] == [nbytes] * 3


def test_payloads_are_not_read() -> None:
    reads: list[tuple[int, int]] = []

    class Watched(BytesSource):
        def read_at(self, offset: int, length: int) -> bytes:
            reads.append((offset, offset + length))
            return super().read_at(offset, length)

    nbytes = 10 << 20
    stream = b"\x80\x03B" + struct.pack("<I", nbytes) + bytes(nbytes) + b"."
    found = OpcodeStream(Watched(stream), 0)
    assert [code for code, _, _ in zip_until_stop(found)] == [op.BINBYTES, op.STOP]
    assert sum(stop - start for start, stop in reads) < 10_000


def zip_until_stop(stream: OpcodeStream) -> list[tuple[int, Any, int]]:
    found = []
    for triple in stream:
        found.append(triple)
        if triple[0] == op.STOP:
            break
    return found


def test_a_file_of_numpy_reads_as_pickletools_reads_it() -> None:
    for form in (asm.C, asm.D, asm.E, asm.CANONICAL):
        stream = form.stream(form.update(form.array((3, 4)), form.array((2,), "f8"))).data
        ours = [
            (code, offset)
            for code, _, offset in zip_until_stop(OpcodeStream(BytesSource(stream), 0))
        ]
        theirs = [
            (ord(opcode.code), pos)
            for opcode, _, pos in pickletools.genops(stream)
            if opcode.name not in ("PROTO", "FRAME")
        ]
        assert ours == theirs
