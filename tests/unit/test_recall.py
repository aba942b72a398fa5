"""Structures of small valid files are remembered, and the numbers in them may differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from bkformat import check_bytes, layout, recall
from bkformat.source import BytesSource
from bkformat.validate import judge

from .files import aggregate, asm, codes, update, zeros


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    recall.forget()
    yield
    recall.forget()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that were read opcode by opcode."""
    sizes: list[int] = []

    class Counting(layout.SymbolicUnpickler):
        def __init__(self, source: BytesSource, *arguments: object, **options: object) -> None:
            sizes.append(source.nbytes)
            super().__init__(source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(layout, "SymbolicUnpickler", Counting)
    return sizes


def test_the_second_file_of_a_structure_is_not_read(read: list[int]) -> None:
    """An accelerator that is never taken would pass every other test."""
    for count in (7, 200, 255, 1):
        report = check_bytes(update(*zeros((3, 4)), num_samples=count))
        assert report.valid
        assert report.layout is not None
        assert report.layout.num_samples == count
    assert len(read) == 1


@pytest.mark.parametrize("form", [asm.C, asm.D, asm.E], ids=["C", "D", "E"])
def test_other_dimensions_are_recalled(form: object, read: list[int]) -> None:
    for shape in ((3, 4), (5, 6), (1, 1), (7, 7)):
        arrays = [np.zeros(shape, "f4"), np.zeros((shape[0],), "f8")]
        report = check_bytes(update(*arrays, form=form))
        assert report.valid
        assert report.layout is not None
        assert [array.shape for array in report.layout.parameters] == [shape, shape[:1]]
    assert len(read) == 1


def test_a_count_out_of_range_is_read(read: list[int]) -> None:
    good = update(*zeros((3, 4)), num_samples=7)
    bad = update(*zeros((3, 4)), num_samples=0)
    assert check_bytes(good).valid
    assert codes(check_bytes(bad)) == ["BK311"]
    assert codes(check_bytes(bad)) == ["BK311"]
    assert len(read) == 3


@pytest.mark.parametrize("count", [300, 70_000, 2**40])
def test_counts_of_every_width(count: int, read: list[int]) -> None:
    for number in (count, count, count + 1):
        report = check_bytes(update(*zeros((2,)), num_samples=number))
        assert report.layout is not None
        assert report.layout.num_samples == number
    # A count of more than 31 bits is part of the structure.
    assert len(read) == (1 if count < 2**31 else 2)


def test_options_are_told_apart(read: list[int]) -> None:
    data = update(*zeros((2,)))
    check_bytes(data)
    check_bytes(data, kind="aggregate")
    assert len(read) == 2


@pytest.mark.parametrize(
    "data",
    [
        update(*zeros((2,)))[:-1],
        update(*zeros((20_000,))),
        update(*zeros((2,), dtype="int64")),
        update(*zeros((0,))),
        update(*zeros((2,)), form=asm.CANONICAL),
    ],
    ids=["refused", "large", "warned", "empty-array", "canonical"],
)
def test_what_is_not_kept(data: bytes, read: list[int]) -> None:
    assert check_bytes(data) == check_bytes(data)
    assert len(read) == 2


def test_the_memory_is_bounded(read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_MOST_SEGMENTS", 50)
    structures = [update(*zeros(*[(2,)] * count)) for count in range(1, 100)]
    for data in structures:
        check_bytes(data)
    assert len(read) == len(structures)
    assert 0 < recall._count <= 500
    check_bytes(structures[-1])
    assert len(read) == len(structures)
    check_bytes(structures[0])
    assert len(read) == len(structures) + 1


def test_structures_that_begin_alike_are_told_apart(read: list[int]) -> None:
    """By the dtype, the number of axes, the order, the number of arrays."""
    files = [
        update(*zeros(*shapes, dtype=dtype), form=form)
        for form in (asm.C, asm.D, asm.E)
        for dtype in ("float16", "float32", "float64")
        for shapes in ([(2,)], [()], [(2, 3)], [(2,), (3,)], [(2,), (3, 1)], [(1, 2, 3, 4)])
    ]
    for data in (*files, *files):
        assert check_bytes(data) == judge(BytesSource(data), fast=False).report
    assert len(read) - len(files) == 2 * len(files)  # the slow path reads each time


@pytest.mark.parametrize("form", [asm.D, asm.E], ids=["D", "E"])
def test_every_byte_that_is_no_number_is_compared(form: object) -> None:
    """The typecode too, which lies in a payload."""
    data = update(*zeros((2,)), form=form)
    assert check_bytes(data).valid
    at = data.index(b"C\x01b") + 2
    assert codes(check_bytes(data[:at] + b"c" + data[at + 1 :])) == ["BK328"]
    (array,) = check_bytes(data).layout.parameters  # type: ignore[union-attr]
    payload = range(array.offset, array.offset + array.nbytes)
    count = data.index(b"K\x07") + 1
    refused = 0
    for at in set(range(len(data))) - set(payload) - {count}:
        edited = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        slow = judge(BytesSource(edited), fast=False).report
        assert check_bytes(edited) == slow, at
        refused += not slow.valid
    # A few edits are harmless, such as another index for a memo slot that nothing asks for.
    assert refused > 0.9 * (len(data) - len(payload))


@pytest.mark.parametrize(
    ("dims", "nbytes", "code"),
    [((2, 4), 24, "BK321"), ((3, 4), 28, "BK321"), ((3, 4), 20, "BK321"), ((0, 4), 0, None)],
)
def test_numbers_that_do_not_fit_are_read(
    dims: tuple[int, int], nbytes: int, code: str | None, read: list[int]
) -> None:
    assert check_bytes(update(*zeros((2, 3)))).valid
    array = asm.E.array(dims, "f4", bytes(nbytes))
    report = check_bytes(asm.E.file(asm.E.update(array)).data)
    assert code is None or codes(report) == [code]
    assert len(read) == 2


def test_structure_is_of_the_file_at_hand() -> None:
    """What was recalled is hashed with the count and the sizes of this file."""
    for count, shape in ((7, (2, 3)), (8, (2, 3)), (9, (4, 5))):
        data = update(*zeros(shape), num_samples=count)
        for _ in range(2):
            report = check_bytes(data, sha256=True)
            assert report.sha256 == hashlib.sha256(data).hexdigest()


def test_bare_aggregates_have_no_count(read: list[int]) -> None:
    for shape in ((2,), (5,)):
        report = check_bytes(aggregate(*zeros(shape, (3,))), kind="aggregate")
        assert report.layout is not None
        assert report.layout.num_samples is None
        assert [array.shape for array in report.layout.parameters] == [shape, (3,)]
    assert len(read) == 1


def test_a_structure_is_known_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads look for it while another is at adding it."""
    data = update(*zeros((2,)), num_samples=2**40)
    grow = recall._grow
    found = []

    def growing(*arguments: object) -> object:
        node = grow(*arguments)  # type: ignore[arg-type]
        found.append(recall.recall(data, ("update", frozenset(), False)))
        return node

    monkeypatch.setattr(recall, "_grow", growing)
    assert check_bytes(data).valid
    assert len(found) >= 4
    assert all(recalled is None or recalled.layout is not None for recalled in found)
    assert recall.recall(data, ("update", frozenset(), False)) is not None
