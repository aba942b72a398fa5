"""Attacks on memory, time and the file itself: lengths that lie, floods, depth, special files.

No test measures time: what takes too long runs into the time limit of the test run. Memory is
measured, since a length that is believed shows in its peak.
"""

from __future__ import annotations

import os
import pickletools
import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bkformat import Finding, UpdateChangedError, check_bytes, check_file
from bkformat import assembler as asm
from bkformat.assembler import HERE, D, E, Form, Part
from bkformat.stream import OPCODES_AT_FIRST

_FORMS = {"protocol-3": D, "protocol-4": E}
_Refuses = Callable[..., Finding]
_HEADER = asm.npy_header()
_FIRST = len(_HEADER) + 2
"""Offset of the first opcode after PROTO."""

_MIB = 1 << 20


@pytest.fixture(params=[*_FORMS.values()], ids=[*_FORMS])
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Whatever a file claims, judging it takes little memory besides the file's own."""
    check_bytes(E.file().data)  # imports what is imported lazily
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * _MIB


def opcodes(form: Form, *parts: bytes) -> bytes:
    """A file of these opcodes, without frames."""
    return _HEADER + asm.proto(form.protocol) + b"".join(parts)


# --- amplification and lengths ---------------------------------------------------------------


def _laughs(levels: int) -> Part:
    """A tuple of two of the tuple before: 30 levels have a billion leaves."""
    part: Part = asm.Memo([asm.integer(1), asm.TUPLE1], 0)
    for level in range(1, levels):
        part = asm.Memo([part, part, asm.At(f"level {level}"), asm.TUPLE2], level)
    return part


def test_attack_23_billion_laughs(form: Form, refuses: _Refuses) -> None:
    built = form.file(_laughs(30))
    refuses(built.data, "BK221", built.at["level 8"])
    built = form.file(form.update(num_samples=_laughs(30)))
    refuses(built.data, "BK221", built.at["level 8"])
    built = form.file([asm.tuple_of(asm.integer(1)), HERE, asm.DUP, asm.TUPLE2])
    refuses(built.data, "BK206", built.here)


def test_attack_23_tuples_inside_a_shape(form: Form, refuses: _Refuses) -> None:
    inner = asm.tuple_of(asm.integer(1), asm.integer(1))
    dims = [asm.MARK, inner, inner, HERE, asm.TUPLE]
    built = form.file(form.update(form.array(dims=dims)))
    refuses(built.data, "BK323", built.here)


@pytest.mark.parametrize(
    ("code", "opcode"),
    [
        ("BK209", b"B\xff\xff\xff\xff"),
        ("BK209", b"B\xff\xff\xff\x7f"),
        ("BK219", b"X\xff\xff\xff\xff"),
        ("BK209", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("BK209", b"\x8e\0\0\0\0\0\0\0\x80"),
        ("BK209", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("BK206", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("BK206", b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("BK206", b"T\xff\xff\xff\xff"),
        ("BK206", b"T\xff\xff\xff\x7f"),
    ],
)
@pytest.mark.usefixtures("little_memory")
def test_attack_24_length_past_the_end(code: str, opcode: bytes, refuses: _Refuses) -> None:
    for form in (D, E):
        narrow = opcode[0] == 0x8E and form is D
        for update in (
            form.update(num_samples=[HERE, opcode]),
            form.update(form.array(), form.array(), form.array((2,), body=[HERE, opcode])),
        ):
            built = form.file(update, frames=False)
            refuses(built.data, "BK206" if narrow else code, built.here, on_disk=True)


def test_attack_24_length_of_one_byte_too_many(form: Form, refuses: _Refuses) -> None:
    for left in range(3):
        body = bytes(left)
        for opcode in (b"C" + bytes([left + 1]), b"B" + struct.pack("<I", left + 1)):
            refuses(opcodes(form, opcode, body), "BK209", _FIRST)


def test_attack_25_giant_integers(form: Form, refuses: _Refuses) -> None:
    for number in (
        asm.long1(2**63),
        asm.long1(-(2**63) - 1),
        asm.long1(2**64),
        asm.long1(2**2030),
        b"\x8a\xff" + b"\xff" * 254 + b"\x7f",
        asm.long4(7),
        b"\x8b\xff\xff\xff\xff",
        b"\x8b\0\0\0\x80",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8b\0\0\0\0",
    ):
        for update in (
            form.update(num_samples=[HERE, number]),
            form.update(form.array(dims=asm.tuple_of([HERE, number]))),
            form.update(form.array(version=[HERE, number])),
        ):
            built = form.file(update)
            refuses(built.data, "BK218", built.here)


def test_attack_25_zero_extended_integers_are_alignment(form: Form, refuses: _Refuses) -> None:
    for nbytes in (1, 2, 8, 9, 64, 255):
        padded = form.update(form.array(version=asm.long1(1, nbytes)))
        assert check_bytes(form.file(padded).data).valid
        count = form.file(form.update(num_samples=asm.long1(7, nbytes)))
        assert check_bytes(count.data).valid
        minus = form.file(form.update(num_samples=[HERE, asm.long1(-1, nbytes)]))
        refuses(minus.data, "BK311", minus.here)
    nothing = form.file(form.update(num_samples=[HERE, b"\x8a\0"]))
    refuses(nothing.data, "BK311", nothing.here)


def test_attack_26_digits_as_text(form: Form, refuses: _Refuses) -> None:
    digits = b"9" * 4200
    for opcode in (b"I", b"L", b"F", b"p", b"g"):
        built = form.file(form.update(num_samples=[HERE, opcode, digits, b"\n"]))
        refuses(built.data, "BK206", built.here)
    built = form.file(form.update(num_samples=[HERE, asm.unicode32("9" * 4200)]))
    refuses(built.data, "BK219", built.here)


# --- frames ----------------------------------------------------------------------------------


def _body() -> bytes:
    """A valid stream of protocol 4 after PROTO, without frames: names, memo and five arrays."""
    arrays = [E.array((at + 1,)) for at in range(5)]
    return E.stream(E.update(*arrays), frames=False).data[2:]


def _boundaries(body: bytes) -> list[int]:
    """Where each opcode begins, and the end."""
    starts = [at for _, _, at in pickletools.genops(asm.proto(4) + body) if at is not None]
    return [at - 2 for at in starts[1:]] + [len(body)]


_BODY = _body()
_BOUNDARIES = _boundaries(_BODY)


@pytest.mark.parametrize("excess", [1, 2, 100, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.usefixtures("little_memory")
def test_attack_27_frame_past_the_end(excess: int, refuses: _Refuses) -> None:
    for at in _BOUNDARIES:
        left = len(_BODY) - at
        length = excess if excess >= 2**31 else left + excess
        data = opcodes(E, _BODY[:at], asm.frame(length), _BODY[at:])
        if at < len(_BODY):
            refuses(data, "BK210", _FIRST + at)


def test_attack_28_opcode_crosses_the_end_of_a_frame(refuses: _Refuses) -> None:
    """Every length of a first frame: at an opcode it is fine, inside one it is not."""
    for length in range(1, len(_BODY)):
        data = opcodes(E, asm.frame(length), _BODY)
        if length in _BOUNDARIES:
            assert check_bytes(data).valid
        else:
            crossing = max(at for at in _BOUNDARIES if at < length)
            refuses(data, "BK211", _FIRST + len(asm.frame(0)) + crossing)


def test_attack_28_opcode_crosses_the_end_of_a_later_frame(refuses: _Refuses) -> None:
    """A frame of every opcode's length less one, begun at that opcode."""
    for start, stop in pairwise(_BOUNDARIES):
        for length in range(1, stop - start):
            data = opcodes(E, _BODY[:start], asm.frame(length), _BODY[start:])
            refuses(data, "BK211", _FIRST + start + len(asm.frame(0)))


def test_attack_28_frame_inside_a_frame(refuses: _Refuses) -> None:
    width = len(asm.frame(0))
    for at in _BOUNDARIES[:-1]:
        left = len(_BODY) - at
        for length in (1, left, 0, left + 1, 2**63):
            inner = asm.frame(length)
            data = opcodes(E, asm.frame(len(_BODY) + width), _BODY[:at], inner, _BODY[at:])
            refuses(data, "BK212", _FIRST + width + at)


def test_attack_28_frame_begins_where_the_last_one_has_not_ended(refuses: _Refuses) -> None:
    """The first frame reaches 1 to 9 bytes into the opcode FRAME of the second."""
    width = len(asm.frame(0))
    cut = _BOUNDARIES[20]
    for excess in range(1, width + 1):
        second = asm.frame(len(_BODY) - cut)
        data = opcodes(E, asm.frame(cut + excess), _BODY[:cut], second, _BODY[cut:])
        refuses(data, "BK212", _FIRST + width + cut)


def test_attack_28_name_crosses_the_end_of_a_frame(refuses: _Refuses) -> None:
    """Unpicklers disagree whether the second line goes on in the frame or after it."""
    line = asm.global_line("numpy", "ndarray")
    for length in range(1, len(line)):
        data = opcodes(E, asm.frame(length), line, _BODY)
        refuses(data, "BK211", _FIRST + len(asm.frame(0)))
    # A line end that only one unpickler sees, with a name behind it that only the other sees.
    short = asm.frame(len(b"cnumpy\n")) + b"cnumpy\n" + asm.frame(20) + b"ndarray\nos\nmkdir\n"
    refuses(opcodes(E, short, _BODY), "BK220", _FIRST + len(asm.frame(0)))


def test_attack_28_frames_around_whole_opcodes_are_fine() -> None:
    framed = b"".join(
        asm.frame(stop - start) + _BODY[start:stop] for start, stop in pairwise(_BOUNDARIES)
    )
    assert check_bytes(opcodes(E, framed)).valid


def test_attack_28_frame_in_protocol_3(refuses: _Refuses) -> None:
    body = D.stream(D.update()).data[2:]
    for length in (0, 1, len(body), 2**63):
        refuses(opcodes(D, asm.frame(length), body), "BK206", _FIRST)


def test_attack_28_what_looks_like_a_frame_in_a_payload() -> None:
    payload = asm.frame(3) * 8
    built = E.file(E.update(E.array((72,), "u1", payload), E.array((3,))))
    assert check_bytes(built.data).valid


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_attack_29_empty_frames(count: int, refuses: _Refuses) -> None:
    for at in _BOUNDARIES:
        data = opcodes(E, _BODY[:at], asm.frame(0) * count, _BODY[at:])
        if at < len(_BODY):
            refuses(data, "BK213", _FIRST + at)
        else:
            refuses(data, "BK208", len(_HEADER) + 2 + at)


# --- depth, memo, floods ---------------------------------------------------------------------

_MILLION = 1_000_000


def test_attack_30_million_nested_lists(form: Form, refuses: _Refuses) -> None:
    data = opcodes(form, asm.EMPTY_LIST * _MILLION, asm.APPEND * (_MILLION - 1), asm.STOP)
    refuses(data, "BK221", _FIRST + OPCODES_AT_FIRST)
    marks = opcodes(form, (asm.EMPTY_LIST + asm.MARK) * _MILLION)
    refuses(marks, "BK221", _FIRST + 2 * 8 + 1)


def test_attack_30_nine_nested_containers(form: Form, refuses: _Refuses) -> None:
    lists = opcodes(form, asm.EMPTY_LIST * 30, asm.APPEND * 29, asm.STOP)
    refuses(lists, "BK221", _FIRST + 30 + 7)
    tuples = opcodes(form, asm.EMPTY_TUPLE, asm.TUPLE1 * _MILLION, asm.STOP)
    refuses(tuples, "BK221", _FIRST + 8)
    built = form.file(_nested_arrays(form, 30))
    # Each state is a tuple that stays open while what is in it is read.
    refuses(built.data, "BK221", built.at["mark 21"])


def _nested_arrays(form: Form, levels: int) -> Part:
    """Object arrays of one object array each."""
    part: Part = form.array()
    for level in range(levels):
        state = [asm.integer(1), asm.shape_of(1), form.dtype("O8"), asm.FALSE]
        items = [asm.EMPTY_LIST, part, asm.APPEND]
        label = asm.At(f"mark {level}")
        part = [form.call(), label, asm.MARK, *state, *items, asm.TUPLE, asm.BUILD]
    return part


@pytest.mark.parametrize("index", [2**8, 2**16, 2**24, 2**31, 2**32 - 16, 2**32 - 1])
@pytest.mark.usefixtures("little_memory")
def test_attack_31_memo_index(form: Form, index: int, refuses: _Refuses) -> None:
    write: Part = [asm.payload(b"xy"), HERE, asm.long_binput(index)]
    built = form.file(form.update(num_samples=write))
    refuses(built.data, "BK216", built.here)
    read: Part = [HERE, asm.long_binget(index)]
    built = form.file(form.update(num_samples=read))
    refuses(built.data, "BK215", built.here)


def test_attack_31_memo_index_is_below_the_opcodes_so_far(form: Form, refuses: _Refuses) -> None:
    """Two opcodes were read, the write itself is the second: 0 and 1 are fine, 2 is not."""
    for index, code in ((0, "BK328"), (1, "BK328"), (2, "BK216"), (3, "BK216")):
        data = opcodes(form, asm.payload(b"xy"), asm.binput(index), asm.TUPLE, asm.STOP)
        refuses(data, code, _FIRST + (6 if code == "BK328" else 4))


@pytest.mark.usefixtures("little_memory")
def test_attack_32_mark_flood(form: Form, refuses: _Refuses) -> None:
    refuses(opcodes(form, asm.MARK * 8 * _MILLION), "BK221", _FIRST + 8)


@pytest.mark.parametrize(
    "pushed",
    [asm.NONE, asm.TRUE, asm.EMPTY_TUPLE, asm.EMPTY_LIST, asm.integer(1), asm.real(1.0)],
    ids=["none", "true", "tuple", "list", "int", "float"],
)
def test_attack_33_push_flood(form: Form, pushed: bytes, refuses: _Refuses) -> None:
    data = opcodes(form, pushed * (OPCODES_AT_FIRST + 10))
    refuses(data, "BK221", _FIRST + OPCODES_AT_FIRST * len(pushed))


def test_attack_33_push_and_pop(form: Form, refuses: _Refuses) -> None:
    refuses(opcodes(form, (asm.NONE + asm.POP) * 1000), "BK206", _FIRST + 1)
    refuses(opcodes(form, (asm.MARK + asm.POP_MARK) * 1000), "BK206", _FIRST + 1)


@pytest.mark.usefixtures("little_memory")
def test_attack_33_flood_takes_little_memory() -> None:
    """Lists are the largest of what a byte can push."""
    report = check_bytes(opcodes(E, asm.EMPTY_LIST * _MILLION))
    assert [found.offset for found in report.findings] == [_FIRST + OPCODES_AT_FIRST]


def test_attack_33_floods_that_leave_little_on_the_stack(form: Form, refuses: _Refuses) -> None:
    wrap = asm.EMPTY_TUPLE + (asm.MARK + asm.TUPLE) * OPCODES_AT_FIRST
    refuses(opcodes(form, wrap), "BK221", _FIRST + OPCODES_AT_FIRST)
    fill = asm.EMPTY_LIST + (asm.NONE + asm.APPEND) * OPCODES_AT_FIRST
    refuses(opcodes(form, fill), "BK221", _FIRST + OPCODES_AT_FIRST)
    empty = asm.EMPTY_LIST + (asm.MARK + asm.APPENDS) * OPCODES_AT_FIRST
    refuses(opcodes(form, empty), "BK221", _FIRST + OPCODES_AT_FIRST)
    get = asm.payload(b"") + asm.binput(0) + asm.binget(0) * OPCODES_AT_FIRST
    refuses(opcodes(form, get), "BK221", _FIRST + 4 + 2 * (OPCODES_AT_FIRST - 2))


def test_attack_34_arrays_are_limited(
    form: Form, refuses: _Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million is too many to assemble here; the same code counts to 50."""
    monkeypatch.setattr("bkformat.symbolic.MAX_ITEMS", 50)
    fifty = [form.array((1,), key=at) for at in range(50)]
    assert check_bytes(form.file(form.update(*fifty)).data).valid
    one_by_one: list[Part] = [asm.EMPTY_LIST, *([array, asm.APPEND] for array in fifty)]
    again: Part = [*one_by_one, form.array(), HERE, asm.APPEND]
    built = form.file(form.outer(asm.list_of(asm.integer(7), again)))
    refuses(built.data, "BK221", built.here)
    many = form.file(form.update(*fifty, form.array()))
    report = check_bytes(many.data)
    assert [found.code for found in report.findings] == ["BK221"]


def test_attack_34_findings_are_limited(form: Form) -> None:
    bad = [form.array((2,), "f4", b"\0\0\xc0\x7f" * 2) for _ in range(5000)]
    findings = check_bytes(form.file(form.update(*bad)).data).findings
    assert len(findings) == 101
    assert {found.code for found in findings} == {"BK401"}
    assert "4,900" in findings[-1].message
    assert findings[-1].offset is None


def test_attack_34_many_arrays_are_no_flood(form: Form) -> None:
    """The limit on opcodes grows with the arrays that were read."""
    for memo, count in (("all", 9_000), ("none", 5_000)):
        many = form.update(*(form.array((1,)) for _ in range(count)))
        assert check_bytes(form.file(many, memo=memo).data).valid


# --- shapes and sizes ------------------------------------------------------------------------


def shaped(form: Form, *dims: Part, text: str = "f4", nbytes: int = 0) -> asm.Built:
    """A file whose fourth array has these dimensions, labelled at the tuple's opcode."""
    opcode = {0: asm.EMPTY_TUPLE, 1: asm.TUPLE1, 2: asm.TUPLE2, 3: asm.TUPLE3}.get(len(dims))
    shape = [*dims, HERE, opcode] if opcode else [asm.MARK, *dims, HERE, asm.TUPLE]
    array = form.array(text=text, dims=shape, body=asm.payload(bytes(nbytes)))
    good = form.array()
    return form.file(form.update(good, good, good, array, good))


@pytest.mark.parametrize(
    "dims",
    [
        (2**62, 2**62),
        (2**32, 2**32),
        (2**63 - 1, 2),
        (2**61,),
        (2**63 - 1,),
        (2**31, 2**31, 2),
        (2**16,) * 4,
        (2**2,) * 31,
        (2**32 + 1, 2**62),
    ],
)
def test_attack_35_shape_overflows(form: Form, dims: tuple[int, ...], refuses: _Refuses) -> None:
    for nbytes in (0, 8):
        built = shaped(form, *map(asm.integer, dims), nbytes=nbytes)
        refuses(built.data, "BK324", built.here)


@pytest.mark.parametrize("dim", [-1, -2, -(2**31), -(2**63)])
def test_attack_36_negative_dimensions(form: Form, dim: int, refuses: _Refuses) -> None:
    for dims in ((dim,), (2, dim), (dim, dim), (0, dim)):
        built = shaped(form, *map(asm.integer, dims), nbytes=4)
        refuses(built.data, "BK323", built.here)


def test_attack_37_dimensions_that_are_no_ints(form: Form, refuses: _Refuses) -> None:
    for dim in (
        asm.TRUE,
        asm.FALSE,
        asm.real(2.0),
        form.text("2"),
        asm.payload(b"2"),
        form.scalar("i8"),
        asm.NONE,
        asm.shape_of(2),
        form.array((), "i8"),
        form.ndarray,
    ):
        built = shaped(form, dim, nbytes=8)
        refuses(built.data, "BK323", built.here)


def test_attack_38_zero_beside_huge_dimensions(form: Form, refuses: _Refuses) -> None:
    for dims in ((0, 2**63 - 1), (2**63 - 1, 0), (0, 2**62, 2**62), (2**61, 0)):
        built = shaped(form, *map(asm.integer, dims))
        refuses(built.data, "BK324", built.here)
    largest = shaped(form, *map(asm.integer, (0, 2**61 - 1)))
    assert check_bytes(largest.data).valid


def test_attack_39_too_many_dimensions(form: Form, refuses: _Refuses) -> None:
    for count in (33, 64, 65, 1000, 100_000):
        built = shaped(form, *[asm.integer(1)] * count, nbytes=4)
        refuses(built.data, "BK322", built.here)
    assert check_bytes(shaped(form, *[asm.integer(1)] * 32, nbytes=4).data).valid


def _void(form: Form, text: str, size: int) -> Part:
    align = asm.integer(1)
    sizes = [asm.integer(size), align, asm.integer(0)]
    return form.dtype(
        text, state=asm.tuple_of(asm.integer(3), form.order("|"), asm.NONE * 3, *sizes)
    )


@pytest.mark.usefixtures("little_memory")
def test_attack_40_huge_items(form: Form, refuses: _Refuses) -> None:
    for code, text, size in (("BK334", "V", 2**31 - 1), ("BK335", "S", 2**31 - 1)):
        dtype = _void(form, f"{text}{size}", size)
        empty = form.array(dims=asm.shape_of(0), dtype=dtype, body=[HERE, asm.payload(b"")])
        built = form.file(form.update(empty))
        refuses(built.data, code, built.here + 2)
        full = form.array(dims=asm.shape_of(1), dtype=dtype, body=[HERE, asm.payload(b"xy")])
        built = form.file(form.update(full))
        refuses(built.data, "BK321", built.here + 2)


def test_attack_41_declared_bytes_past_the_file(form: Form, refuses: _Refuses) -> None:
    built = form.file(form.update(form.array((2**40,), body=[HERE, asm.payload(bytes(8))])))
    refuses(built.data, "BK321", built.here + 2)
    claimed = form.array((2**30,), body=[HERE, b"B\0\0\0\xff", bytes(64)])
    built = form.file(form.update(claimed), frames=False)
    refuses(built.data, "BK209", built.here)


@pytest.mark.usefixtures("little_memory")
def test_attack_42_one_payload_for_many_arrays(form: Form, refuses: _Refuses) -> None:
    """2,000 arrays over 1 MB load as 2 GB, and writing to one changes the others."""
    shared = asm.Memo(asm.payload(bytes(_MIB)), "payload")

    def array(at: int) -> Part:
        state: list[Part] = [asm.integer(1), asm.shape_of(_MIB // 4), form.dtype(), asm.FALSE]
        label = [asm.At(f"array {at}")] if at == 1 else []
        return [form.call(), asm.MARK, *state, shared, asm.TUPLE, *label, asm.BUILD]

    built = form.file(form.update(*map(array, range(2000))))
    refuses(built.data, "BK320", built.at["array 1"])


def test_attack_42_payload_is_fetched_after_other_arrays(form: Form, refuses: _Refuses) -> None:
    """The first use stands in a run of usual records, the second far behind it."""
    shared = asm.Memo(asm.payload(asm.ramp("f4", 2)), "payload")
    first = form.array((2,), body=shared)
    state = [asm.integer(1), asm.shape_of(2, 1), form.dtype(), asm.FALSE, shared]
    second = [form.call(), asm.MARK, *state, asm.TUPLE, HERE, asm.BUILD]
    for before in range(4):
        others = [form.array((3,)) for _ in range(5)]
        built = form.file(form.update(*others[:before], first, *others, second, *others))
        refuses(built.data, "BK320", built.here)


def test_attack_42_state_is_fetched_for_another_array(form: Form, refuses: _Refuses) -> None:
    """The whole state comes from the memo, and its payload with it."""
    state = [asm.integer(1), asm.shape_of(2), form.dtype(), asm.FALSE, asm.payload(bytes(8))]
    shared = asm.Memo([asm.MARK, *state, asm.TUPLE], "state")
    for before in range(4):
        others = [form.array((3,)) for _ in range(3)]
        arrays = [*others[:before], form.array(state=shared), *others]
        again = [form.call(), shared, HERE, asm.BUILD]
        built = form.file(form.update(*arrays, again, *others))
        refuses(built.data, "BK320", built.here)


def test_attack_42_typecode_as_payload_is_no_alias(form: Form) -> None:
    """Bytes objects of 0 or 1 byte are shared by every honest writer, and load as copies."""
    ones = [form.array((1,), "u1", b"b") for _ in range(3)]
    empty = [form.array((0,)) for _ in range(3)]
    assert check_bytes(form.file(form.update(*ones, *empty)).data).valid


# --- the file itself -------------------------------------------------------------------------


def after_first_read(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Arrange for `change` to be called once, when the file was read for the first time."""
    pending = [change]

    def hooked(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def read_then_change(*arguments: Any) -> Any:
            result = real(*arguments)
            if pending:
                pending.pop()()
            return result

        return read_then_change

    for name in ("pread", "preadv"):
        monkeypatch.setattr(os, name, hooked(name))


@pytest.mark.parametrize("size", [-1, 1, 5], ids=["cut", "one byte more", "five bytes more"])
@pytest.mark.parametrize("sha256", [False, True])
def test_attack_43_file_changes_its_size_while_it_is_judged(
    form: Form, size: int, sha256: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "update.npy"
    data = form.file(form.update(form.array((5000,)))).data
    path.write_bytes(data)
    after_first_read(monkeypatch, lambda: os.truncate(path, len(data) + size))
    with pytest.raises(UpdateChangedError):
        check_file(path, sha256=sha256)


@pytest.mark.parametrize("sha256", [False, True])
def test_attack_43_file_is_overwritten_while_it_is_judged(
    form: Form, sha256: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "update.npy"
    path.write_bytes(form.file().data)
    os.utime(path, (1, 1))  # so that the clock can't give the same time twice
    other = form.file(form.update(num_samples=8)).data

    def overwrite() -> None:
        path.write_bytes(other)

    after_first_read(monkeypatch, overwrite)
    with pytest.raises(UpdateChangedError):
        check_file(path, sha256=sha256)


def test_attack_43_file_is_replaced_while_it_is_judged(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open file is judged, not what stands under its name later."""
    path, other = tmp_path / "update.npy", tmp_path / "other.npy"
    path.write_bytes(form.file().data)
    other.write_bytes(b"hostile")
    after_first_read(monkeypatch, lambda: os.replace(other, path))
    assert check_file(path).valid
    assert path.read_bytes() == b"hostile"


def test_attack_44_fifo(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    os.mkfifo(path)
    with pytest.raises(OSError, match="regular"):
        check_file(path)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/tty"])
def test_attack_44_device(device: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011  (without a terminal, /dev/tty can't be opened)
        check_file(device)


def test_attack_44_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # socket paths must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("update.npy")
        with pytest.raises(OSError):  # noqa: PT011  (the number differs between systems)
            check_file("update.npy")


def test_attack_44_folder_and_missing(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        check_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "missing.npy")
    dangling = tmp_path / "dangling.npy"
    dangling.symlink_to("missing.npy")
    with pytest.raises(FileNotFoundError):
        check_file(dangling)
    around = tmp_path / "around.npy"
    around.symlink_to("around.npy")
    with pytest.raises(OSError, match="symbolic"):
        check_file(around)


def test_attack_44_links_are_followed_to_regular_files(form: Form, tmp_path: Path) -> None:
    (tmp_path / "update.npy").write_bytes(form.file().data)
    link = tmp_path / "link.npy"
    link.symlink_to("update.npy")
    assert check_file(link).valid
    link.unlink()
    os.mkfifo(tmp_path / "fifo")
    link.symlink_to("fifo")
    with pytest.raises(OSError, match="regular"):
        check_file(link)


@pytest.mark.usefixtures("little_memory")
def test_attack_44_sparse_file(tmp_path: Path) -> None:
    """A hole of 100 MiB is read as zeros, in blocks; one of 1 TiB before the end is never read."""
    nbytes = 100 * _MIB
    head, tail = _around_payload(nbytes)
    path = tmp_path / "sparse.npy"
    with path.open("wb") as file:
        file.write(head)
        file.seek(nbytes, os.SEEK_CUR)
        file.write(tail)
    assert check_file(path).valid
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    report = check_file(path)
    expected = [("BK208", len(head) + nbytes + len(tail))]
    assert [(found.code, found.offset) for found in report.findings] == expected


def _around_payload(nbytes: int) -> tuple[bytes, bytes]:
    """What stands before and after a payload of this many bytes."""
    opcode = b"B" + struct.pack("<I", nbytes)
    array = D.array((nbytes // 4,), body=[opcode, asm.At("payload")])
    built = D.file(D.update(array))
    at = built.at["payload"]
    return built.data[:at], built.data[at:]


def test_attack_44_no_bytes(refuses: _Refuses) -> None:
    refuses(b"", "BK101", 0, on_disk=True)
