"""Any bytes at all give a report and never an exception."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bkformat import RULES, Report, UpdateSchema, check_bytes

from .files import asm, edited, edited_bytes, good_files, small_fixtures

_SCHEMA = UpdateSchema.model_validate(
    {
        "version": 1,
        "num_samples": {"min": 2, "max": 1000},
        "dtypes": ["float32", "complex64"],
        "max_abs": 10,
        "max_nbytes": 1000,
        "parameters": [{"dtype": "float32", "shape": [3, None]}, {"shape": [2]}],
    }
)
_OPTIONS: list[dict[str, Any]] = [
    {},
    {"values": False},
    {"kind": "aggregate", "strict": True},
    {"schema": _SCHEMA, "sha256": True},
]
_options = st.sampled_from(_OPTIONS)
_fixtures = st.sampled_from(small_fixtures("valid", "warning", "invalid"))


def assert_sound(data: bytes, options: dict[str, Any]) -> None:
    """A report whose every part holds together."""
    report = check_bytes(data, **options)
    assert type(report) is Report
    assert report.nbytes == len(data)
    for found in report.findings:
        rule = RULES[found.code]
        assert (found.name, found.severity) == (rule.name, rule.severity)
        assert found.offset is None or 0 <= found.offset <= len(data)
        assert found.message.isprintable()
        assert found.message.isascii()
    if options.get("sha256"):
        assert report.sha256 == hashlib.sha256(data).hexdigest()
    if report.valid:
        assert report.layout is not None
        assert report.layout.stopped_at is None
        assert data.endswith(b".")
    for array in report.layout.parameters if report.layout else ():
        assert array.offset >= 0
        assert 0 <= array.nbytes <= len(data) - array.offset


@example(b"", {})
@example(b"\x93NUMPY", {})
@given(st.binary(max_size=400), _options)
def test_random_bytes(data: bytes, options: dict[str, Any]) -> None:
    assert_sound(data, options)


@given(st.binary(max_size=200), st.sampled_from([b"\x80\x03", b"\x80\x04", b""]), _options)
def test_random_bytes_behind_a_header(data: bytes, start: bytes, options: dict[str, Any]) -> None:
    assert_sound(bytes(asm.npy_header()) + start + data, options)


_single = st.sampled_from(b"().BCGJKMNRX]abcehjqrt}\x85\x86\x87\x88\x89\x93\x94")
_whole = [
    b"\x8a\x01\x01", b"\x8c\x02f4", b"K\x00", b"K\x01", b"C\x01b", b"h\x00", b"h\x01", b"q\x00",
    b"\x8c\x05numpy", b"\x8c\x05dtype", b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
]  # fmt: skip
_alphabet = _single.map(lambda code: bytes([code])) | st.sampled_from(_whole)


@given(st.lists(_alphabet, max_size=60).map(b"".join), st.sampled_from([3, 4]), _options)
def test_random_opcodes(data: bytes, protocol: int, options: dict[str, Any]) -> None:
    start = bytes(asm.npy_header()) + b"\x80" + bytes([protocol])
    assert_sound(start + data, options)


@given(edited, _options)
def test_edited_files(data: bytes, options: dict[str, Any]) -> None:
    assert_sound(data, options)


@given(edited_bytes(_fixtures), _options)
def test_edited_fixtures(data: bytes, options: dict[str, Any]) -> None:
    assert_sound(data, options)


@settings(max_examples=12)
@given(good_files.filter(lambda data: len(data) < 3000))
def test_every_truncation_and_appended_byte_is_refused(data: bytes) -> None:
    kind = "aggregate"  # takes updates too
    assert check_bytes(data, kind=kind).valid
    for length in range(len(data)):
        assert not check_bytes(data[:length], kind=kind, values=False).valid
    for byte in range(0, 256, 15):
        assert not check_bytes(data + bytes([byte]), kind=kind, values=False).valid
