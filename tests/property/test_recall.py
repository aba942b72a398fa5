"""A structure that is recalled gives the very report that reading the file gives."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from bkformat import Report, UpdateSchema

from . import judging
from .files import (
    DTYPES,
    Content,
    arrays,
    asm,
    counts,
    edited_bytes,
    edited_ops,
    filled,
    forms,
    small_files,
    small_fixtures,
    written,
)
from .judging import forget, judged
from .test_runs import families
from .test_runs import files as streams

_options = st.sampled_from(judging.OPTIONS)


def assert_recalled(data: bytes, options: dict[str, Any]) -> Report:
    """Whatever is remembered, the report is that of the slow path."""
    slow = judged(data, fast=False, **options)
    assert judged(data, fast=True, **options) == slow
    return slow


def assert_recalled_in_turn(files: list[bytes], options: dict[str, Any]) -> None:
    forget()
    for data in (*files, *files, *files[::-1]):
        assert_recalled(data, options)


@settings(max_examples=150)
@given(small_files | streams, _options)
def test_the_same_file_again(data: bytes, options: dict[str, Any]) -> None:
    assert_recalled_in_turn([data], options)


@settings(max_examples=100)
@given(
    st.lists(arrays(), min_size=1, max_size=3),
    forms,
    st.lists(counts | st.integers(-5, 300), min_size=2, max_size=5),
    st.integers(0, 99),
    _options,
)
def test_other_counts_and_values_of_the_same_size(
    parameters: list[Any], form: str, numbers: list[int], seed: int, options: dict[str, Any]
) -> None:
    """One structure with other counts in it, wrong ones too, and with other values."""
    files = [written(Content(number, parameters), form) for number in numbers]
    layout = judged(files[0], fast=False, kind="aggregate").layout
    assert layout is not None
    noise = random.Random(seed)
    other = bytearray(files[0])
    for array in layout.parameters:
        other[array.offset : array.offset + array.nbytes] = noise.randbytes(array.nbytes)
    assert_recalled_in_turn([*files, bytes(other)], options)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(DTYPES), st.integers(0, 4)), min_size=1, max_size=4),
    st.lists(st.lists(st.integers(0, 9), min_size=16, max_size=16), min_size=2, max_size=4),
    st.sampled_from("CF"),
    forms,
    counts,
    _options,
)
def test_other_dimensions(
    kinds: list[tuple[str, int]],
    sizes: list[list[int]],
    order: str,
    form: str,
    count: int,
    options: dict[str, Any],
) -> None:
    """One structure with arrays of other sizes, empty ones among them."""
    files = []
    for numbers in sizes:
        dims = iter(numbers)
        parameters = [
            filled(dtype, [next(dims) for _ in range(rank)], order, rank) for dtype, rank in kinds
        ]
        files.append(written(Content(count, parameters), form))
    assert_recalled_in_turn(files, options)


@settings(max_examples=120)
@given(families, _options)
def test_other_dimensions_of_streams_by_hand(files: list[bytes], options: dict[str, Any]) -> None:
    """Dimensions that are fetched from the memo, or used for more than one thing."""
    assert_recalled_in_turn(files, options)


def test_arrays_that_share_a_byte() -> None:
    """As honest files of two one-byte arrays may, and a schema that names their dtype allows."""
    schema = UpdateSchema.model_validate({"version": 1, "dtypes": ["bool", "float32"]})
    for form in (asm.C, asm.D, asm.E):
        flags = [form.array((), "b1", b"\1")] * 2
        data = bytes(form.file(form.update(*flags, form.array())).data)
        assert assert_recalled(data, {"schema": schema}).valid
        assert_recalled_in_turn([data], {"schema": schema})


def test_a_shape_that_the_outer_array_shares() -> None:
    """The shape of the object array is no dimension that may differ, even where arrays share it."""
    files = []
    for items in (2, 1, 3):
        shape = asm.Memo([asm.integer(items), asm.TUPLE1], "shape")
        array = asm.D.array((items,), dims=shape)
        outer = [asm.integer(1), shape, asm.D.dtype("O8"), asm.FALSE,
                 asm.list_of(asm.integer(7), asm.list_of(array))]  # fmt: skip
        root = asm.Memo(asm.D.call(), None, [asm.tuple_of(*outer), asm.BUILD])
        files.append(bytes(asm.D.file(root, memo="used").data))
    assert judged(files[0], fast=False).valid
    assert not judged(files[1], fast=False).valid
    assert_recalled_in_turn(files, {})
    assert_recalled_in_turn(files, {"kind": "aggregate"})


def test_payloads_that_come_to_be_aligned() -> None:
    """Whether a file is canonical depends on the sizes of its arrays."""
    files = []
    for padding in range(1, 65):
        second = asm.D.array((2,), version=asm.long1(1, padding))
        for size in (15, 16, 17, 32):
            root = asm.D.update(asm.CANONICAL.array((size,)), second)
            files.append(bytes(asm.D.file(root, memo="used").data))
    writers = {getattr(judged(data, fast=False).layout, "writer", None) for data in files}
    assert writers == {"D", "canonical"}
    assert_recalled_in_turn(files, {})


@settings(max_examples=100)
@given(st.data(), small_files, _options)
def test_edits_of_a_file_that_is_remembered(
    data: st.DataObject, file: bytes, options: dict[str, Any]
) -> None:
    forget()
    assert_recalled(file, options)
    for edited in data.draw(st.lists(edited_bytes(st.just(file)), min_size=1, max_size=6)):
        report = assert_recalled(edited, options)
        event(f"valid {report.valid}")
        assert_recalled(file, options)


@settings(max_examples=100)
@given(st.data(), small_files | streams, _options)
def test_edits_that_leave_the_size_as_it_is(
    data: st.DataObject, file: bytes, options: dict[str, Any]
) -> None:
    """Every byte counts: a byte that is not compared could be changed unseen."""
    forget()
    assert_recalled(file, options)
    changes = data.draw(
        st.lists(
            st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), min_size=5, max_size=15
        )
    )
    for at, byte in changes:
        assert_recalled(file[:at] + bytes([byte]) + file[at + 1 :], options)
    assert_recalled(file, options)


@settings(max_examples=60)
@given(st.data(), small_files, _options)
def test_other_structures_of_the_same_size(
    data: st.DataObject, file: bytes, options: dict[str, Any]
) -> None:
    """Padding in the header gives files of other structures the same size."""
    others = data.draw(st.lists(edited_ops(st.just(file)), min_size=1, max_size=4))
    assert_recalled_in_turn(_of_one_size([file, *others]), options)


def _of_one_size(files: list[bytes]) -> list[bytes]:
    largest = max(map(len, files))
    padded = []
    for data in files:
        lacking = largest - len(data)
        start = int.from_bytes(data[8:10], "little") + 10
        spaces = lacking - lacking % 16
        length = (start - 10 + spaces).to_bytes(2, "little")
        padded.append(data[:8] + length + data[10 : start - 1] + b" " * spaces + data[start - 1 :])
    return padded


def test_every_byte_of_small_fixtures() -> None:
    """Each byte of a few files, changed in turn, after the file was remembered."""
    picked = [data for data in small_fixtures("valid", "warning") if len(data) < 600][::16]
    assert len(picked) > 3
    for data in picked:
        for options in ({"kind": "aggregate"}, {"sha256": True, "schema": judging.SCHEMA}):
            forget()
            assert_recalled(data, options)
            for at in range(len(data)):
                changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                assert_recalled(changed, options)
            assert_recalled(data, options)


def test_typecodes_that_stand_in_the_file_twice() -> None:
    """Two byte strings are read as typecodes in turn; each is hashed once."""
    shared = asm.Memo(asm.payload(b"b"), "typecode")
    own = asm.payload(b"b")
    items = [asm.D.array((2,), call=asm.D.call(typecode=code)) for code in (shared, own) * 3]
    root = asm.D.outer(
        asm.list_of(asm.integer(7), asm.list_of(*items)), call=asm.D.call(typecode=shared)
    )
    for memo in ("all", "used"):
        assert_recalled_in_turn([bytes(asm.D.file(root, memo=memo).data)], {"sha256": True})


def test_a_payload_that_is_a_typecode_too() -> None:
    """One byte is compared as a typecode and looked at as a value."""
    for form in (asm.D, asm.E):
        root = form.update(form.array((1,), "u1", b"b"), form.array((1,), "u1", b"\x01"))
        data = bytes(form.file(root).data)
        for options in judging.OPTIONS:
            assert_recalled_in_turn([data], options)


def test_more_structures_than_are_kept() -> None:
    files = [
        bytes(asm.E.file(asm.E.update(asm.E.array((size,)), num_samples=count)).data)
        for size in range(1, 80)
        for count in (3, 200)
    ]
    assert_recalled_in_turn(files, {})
