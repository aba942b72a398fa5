"""The fast path reads what it should: the tests of its results are properties of both paths."""

from __future__ import annotations

from typing import Any

import pytest

from bkformat import recall
from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.record_forms import decode_shape
from bkformat.records import RecordReader, Run
from bkformat.source import BytesSource
from bkformat.stream import OpcodeStream, Span, Window
from bkformat.symbolic import SymbolicUnpickler
from bkformat.symbols import DType, PyTuple
from bkformat.validate import judge

from .files import asm


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each run read."""
    lengths: list[int] = []
    read_run = RecordReader.read_run

    def counting(self: RecordReader, *arguments: Any) -> Run:
        run = read_run(self, *arguments)
        lengths.append(len(run.pairs))
        return run

    monkeypatch.setattr(RecordReader, "read_run", counting)
    return lengths


def machine(root: Any, form: Any, *, frames: bool = False) -> SymbolicUnpickler:
    stream = form.stream(root, frames=frames).data
    found = SymbolicUnpickler(BytesSource(stream), 0)
    found.run()
    return found


@pytest.mark.parametrize(
    "form", [asm.C, asm.D, asm.E, asm.CANONICAL], ids=["C", "D", "E", "canonical"]
)
@pytest.mark.parametrize("frames", [False, True])
def test_all_but_the_first_array_are_read_in_runs(
    form: Any, frames: bool, counted: list[int]
) -> None:
    """An accelerator that is never taken would pass every other test."""
    frames = frames and form.protocol == 4
    arrays = [form.array((at % 5 + 1, 3), "f4", fortran=asm.TRUE) for at in range(900)]
    machine(form.update(*arrays), form, frames=frames)
    assert sum(counted) >= 890


def test_a_run_is_read_from_few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record after record in one loop, not each by a step of its own."""
    peeks = 0
    peek = OpcodeStream.peek

    def counting(self: OpcodeStream, *arguments: int) -> Window:
        nonlocal peeks
        peeks += 1
        return peek(self, *arguments)

    monkeypatch.setattr(OpcodeStream, "peek", counting)
    for form in (asm.D, asm.E, asm.CANONICAL):
        peeks = 0
        machine(form.update(*(form.array((2, 3)) for _ in range(900))), form)
        assert 0 < peeks < 10


_FORMS = {
    "C": (asm.C, "all"),
    "D": (asm.D, "all"),
    "D without memo": (asm.D, "none"),
    "D with used entries": (asm.D, "used"),
    "E": (asm.E, "all"),
    "canonical": (asm.CANONICAL, "used"),
}


@pytest.mark.parametrize("name", _FORMS)
def test_every_byte_of_a_record_is_looked_at(name: str) -> None:
    """A record in a run, with each of its bytes changed in turn, is read as the slow path does."""
    form, memo = _FORMS[name]
    arrays = [form.array((2, 1), "f4", bytes([at]) * 8) for at in range(1, 8)]
    data = bytes(form.file(form.update(*arrays), memo=memo, frames=False).data)
    start, stop = (data.index(bytes([at]) * 8) for at in (4, 5))
    for at in range(start + 8, stop):
        for byte in {data[at] ^ 1, data[at] ^ 0x80, (data[at] + 2) % 256, 0, 1, 255} - {data[at]}:
            changed = BytesSource(data[:at] + bytes([byte]) + data[at + 1 :])
            recall.forget()
            assert judge(changed) == judge(changed, fast=False), (at, byte)


def memo_entries(data: bytes, *, fast: bool) -> int:
    found = SymbolicUnpickler(BytesSource(data), data.index(b"\n") + 1, fast=fast)
    found.run()
    return found._memo_entries


@pytest.mark.parametrize("name", _FORMS)
@pytest.mark.parametrize("shape", [(), (2, 1), (2, 1, 1, 1)])
def test_bytes_that_are_added_or_taken_away(name: str, shape: tuple[int, ...]) -> None:
    """Such as a memo write behind () or none behind (2, 1), each the other way about."""
    form, memo = _FORMS[name]
    nbytes = 8 if shape else 4
    arrays = [form.array(shape, "f4", bytes([at]) * nbytes) for at in range(1, 8)]
    data = bytes(form.file(form.update(*arrays), memo=memo, frames=False).data)
    start, stop = (data.index(bytes([at]) * nbytes) + nbytes for at in (4, 5))
    for at in range(start, stop):
        for piece in (b"", b"\x94", b"q\x40", b")", b"(", b"N", data[at : at + 1] * 2):
            changed = data[:at] + piece + data[at + (len(piece) != 1) :]
            recall.forget()
            found = judge(BytesSource(changed))
            assert found == judge(BytesSource(changed), fast=False), (at, piece)
            if not found.report.findings:
                assert memo_entries(changed, fast=True) == memo_entries(changed, fast=False)


@pytest.mark.parametrize("form", [asm.D, asm.E], ids=["D", "E"])
def test_payloads_past_the_window_are_stepped_over(form: Any, counted: list[int]) -> None:
    arrays = [form.array((100, 200), "f8") for _ in range(12)]
    machine(form.update(*arrays), form, frames=form is asm.E)
    assert sum(counted) >= 10


def test_no_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [asm.E.array((2,)) for _ in range(30)]
    stream = asm.E.stream(asm.list_of(*arrays), frames=False).data
    found = SymbolicUnpickler(BytesSource(stream), 0)
    read_run = RecordReader.read_run
    lengths = []

    def limited(self: RecordReader, stream: Any, memo: Any, room: int) -> Run:
        run = read_run(self, stream, memo, min(room, 4))
        lengths.append(len(run.pairs))
        return run

    monkeypatch.setattr(RecordReader, "read_run", limited)
    root, _ = found.run()
    assert len(root.pairs) == 30
    assert set(lengths) <= {4, 0}
    assert len(lengths) >= 6


def test_run_resolves_every_slot() -> None:
    dtype = DType("f4", ITEMSIZES)  # type: ignore[arg-type]
    arguments = (PyTuple((0,), 1), PyTuple(("args",), 2))
    run = Run(10, arguments, {"float32": dtype})
    matrix = ArrayLayout("float32", (2, 3), "F", 500, 24)
    scalar = ArrayLayout("float32", (), "C", 600, 4)
    run.pairs += [(matrix, 450), (scalar, 560), (matrix._replace(offset=700), 650)]
    assert run.resolve(10) is arguments[0]
    assert run.resolve(11) is arguments[1]
    assert run.resolve(12) is matrix
    assert run.resolve(13).values == (2, 3)
    assert run.resolve(14) == Span(500, 24)
    state = run.resolve(15)
    assert (state.values[0], state.values[2:]) == (1, (dtype, True, Span(500, 24)))
    assert (state.values[1].values, state.depth) == ((2, 3), 2)
    # An array without dimensions has no tuple of them in the memo.
    assert run.resolve(18) is scalar
    assert run.resolve(19) == Span(600, 4)
    assert run.resolve(20).values[1].values == ()
    assert run.resolve(23).offset == 700


def test_dimensions_of_every_width() -> None:
    decode = decode_shape
    assert decode(b")") == ()
    assert decode(b"K\x05\x85") == (5,)
    assert decode(b"K\x05M\x01\x01\x86") == (5, 257)
    assert decode(b"K\x00J\xff\xff\xff\x7fK\x02\x87") == (0, 2**31 - 1, 2)
    assert decode(b"(K\x01K\x02K\x03K\x04t") == (1, 2, 3, 4)
    # The slow path says what is wrong with these.
    for text in (b"", b"X", b"(t", b"K\x05", b"(K\x01K\x02K\x03t", b")K\x01K\x02K\x03K\x04t"):
        assert decode(text) is None
    assert decode(b"K\x05\x86") is None
    assert decode(b"K\x05K\x05\x85") is None
    assert decode(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7fK\x02\x87") is None


@pytest.mark.parametrize("long", [False, True])
def test_a_frame_that_ends_anywhere_in_a_run(long: bool) -> None:
    """The payload's opcode may begin right behind a frame, but not lie across its end."""
    arrays = [asm.E.array((2,), "f4", bytes([at]) * 8) for at in range(1, 7)]
    data = bytes(asm.E.file(asm.E.update(*arrays), frames=False).data)
    if long:  # as no pickler writes so few bytes, and every unpickler reads them
        data = data.replace(b"C\x08", b"B\x08\0\0\0")
    start = data.index(b"\n") + 3  # behind PROTO
    first, last = data.index(bytes([4]) * 8) - 30, data.index(bytes([5]) * 8) + 30
    verdicts = set()
    for stop in range(first, last):
        frame = b"\x95" + (stop - start).to_bytes(8, "little")
        for gap in (0, 8):
            again = data[stop + gap :]
            second = b"\x95" + len(again).to_bytes(8, "little") if gap else b""
            changed = data[:start] + frame + data[start : stop + gap] + second + again
            recall.forget()
            found = judge(BytesSource(changed))
            assert found == judge(BytesSource(changed), fast=False), (stop, gap)
            verdicts.add(found.report.valid)
    assert verdicts == {True, False}
