"""Stage 1: the header."""

from __future__ import annotations

import pytest

from bkformat.findings import Rejected
from bkformat.npy import MAX_HEADER, NpyHeader, read_header
from bkformat.source import BytesSource

from .files import asm

_TEXT = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"


def read(data: bytes) -> NpyHeader:
    return read_header(BytesSource(data))


def refused(data: bytes) -> tuple[str, int | None]:
    with pytest.raises(Rejected) as caught:
        read(data)
    return caught.value.finding.code, caught.value.finding.offset


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("descr", ["|O", "|O8"])
def test_what_numpy_writes(version: tuple[int, int], descr: str) -> None:
    header = asm.npy_header(version=version, descr=f"'{descr}'")
    assert read(header + b".") == NpyHeader(version, descr, (2,), 128)


@pytest.mark.parametrize(
    ("text", "shape"), [("()", ()), ("(2,)", (2,)), ("(2, 3)", (2, 3)), ("(0, 10, 4)", (0, 10, 4))]
)
def test_shapes(text: str, shape: tuple[int, ...]) -> None:
    assert read(asm.npy_header(text) + b".").shape == shape


@pytest.mark.parametrize(
    "text",
    [
        _TEXT.replace("(2,)", shape)
        for shape in (
            "(2)",
            "(2, )",
            "(02,)",
            "(-1,)",
            "(2,3)",
            "(True,)",
            "[2]",
            "(2L,)",
            "(2,,)",
            "2",
        )
    ]
    + [
        "{'descr': '|O', 'shape': (2,), 'fortran_order': False, }",
        "{'descr': '|O', 'fortran_order': 0, 'shape': (2,), }",
        "{'descr': \"|O\", 'fortran_order': False, 'shape': (2,), }",
        _TEXT + "#",
        " " + _TEXT,
        _TEXT.replace("(2,)", "(" + "9" * 20 + ",)"),
        "__import__('os')",
        "(" * 60,
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    assert refused(asm.npy_header(text=text) + b".") == ("BK108", 10)


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"", "BK101", 0),
        (b"hello", "BK102", 0),
        (b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00a.npy", "BK103", 0),
        (b"\x1f\x8b\x08", "BK103", 0),
        (b"\x80\x04N.", "BK104", 0),
        (b"\x93NUMPY\x09\x00" + bytes(200), "BK105", 6),
        (b"\x93NUM", "BK106", 4),
        (b"\x93NUMPY\x01", "BK106", 7),
        (b"\x93NUMPY\x02\x00\x01\x00", "BK106", 10),
        (asm.npy_header()[:100], "BK106", 100),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(9), "BK107", 8),
        (b"\x93NUMPY\x01\x00\x01\x10" + bytes(5000), "BK107", 8),
        (asm.npy_header(descr="'<f4'") + b".", "BK109", 10),
        (asm.npy_header(fortran="True") + b".", "BK110", 10),
        (asm.raw_header(_TEXT.encode() + b"\n") + b".", "BK111", 10),
        (asm.npy_header(), "BK112", 128),
    ],
)
def test_faults(data: bytes, code: str, offset: int) -> None:
    assert refused(data) == (code, offset)


def test_the_longest_header() -> None:
    longest = _TEXT.encode() + b" " * (MAX_HEADER - len(_TEXT) - 1 - 10) + b"\n"
    assert read(asm.raw_header(longest) + b".").data_offset == MAX_HEADER


def test_the_length_is_bounded_before_anything_is_read() -> None:
    reads = []

    class Watched(BytesSource):
        def read_at(self, offset: int, length: int) -> bytes:
            reads.append((offset, length))
            return super().read_at(offset, length)

    data = b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(1 << 20)
    with pytest.raises(Rejected):
        read_header(Watched(data))
    assert reads == [(0, MAX_HEADER + 12)]


def test_a_stranger_s_text_is_escaped_and_cut() -> None:
    with pytest.raises(Rejected) as caught:
        read(asm.raw_header(b"\x1b[31m\n" * 300) + b".")
    message = caught.value.finding.message
    assert message.isprintable()
    assert len(message) < 130
