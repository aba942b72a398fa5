"""Stage 3: the symbolic stack."""

from __future__ import annotations

from typing import Any

import pytest

from bkformat.arrays import ArrayLayout
from bkformat.findings import Rejected
from bkformat.source import BytesSource
from bkformat.symbolic import SymbolicUnpickler
from bkformat.symbols import NumpyScalar, ObjectArray, PyList, PyTuple

from .files import asm

D, E = asm.D, asm.E


def run(part: Any, form: Any = D) -> Any:
    stream = form.stream(part, memo="all", frames=False).data
    return SymbolicUnpickler(BytesSource(stream), 0).run()[0]


def refused(part: Any, form: Any = D) -> str:
    with pytest.raises(Rejected) as caught:
        run(part, form)
    finding = caught.value.finding
    assert finding.offset is not None
    return finding.code


def test_plain_values() -> None:
    assert run(asm.integer(7)) == 7
    assert run(asm.TRUE) is True
    assert run(asm.NONE) is None
    assert run(asm.real(0.5)) == 0.5
    assert run(D.text("f4")) == "f4"


def test_containers() -> None:
    found = run(asm.tuple_of(asm.integer(1), asm.TRUE))
    assert type(found) is PyTuple
    assert found.values == (1, True)
    filled = run(asm.list_of(asm.integer(1), asm.list_of()))
    assert type(filled) is PyList
    assert [type(value) for value, _ in filled.pairs] == [int, PyList]


@pytest.mark.parametrize("form", [asm.C, D, E, asm.CANONICAL], ids=["C", "D", "E", "canonical"])
def test_an_array(form: Any) -> None:
    found = run(form.array((3, 4), "f8", fortran=asm.TRUE), form)
    assert found[:3] == ("float64", (3, 4), "F")
    assert found.nbytes == 96
    stream = form.stream(form.array((3, 4), "f8", fortran=asm.TRUE), memo="all", frames=False).data
    payload = asm.ramp("f8", 12)
    if not form.padded:
        assert stream[found.offset : found.offset + 96] == payload


def test_an_object_array() -> None:
    found = run(D.outer(asm.list_of(asm.integer(7), asm.integer(8))))
    assert type(found) is ObjectArray
    assert found.shape == (2,)
    assert [value for value, _ in found.pairs] == [7, 8]


def test_a_scalar_is_understood() -> None:
    found = run(D.scalar("i8"))
    assert type(found) is NumpyScalar
    assert (found.dtype, found.nbytes) == ("int64", 8)


def test_names_come_from_the_stack() -> None:
    """The texts of a name may come from the memo, in any order of writing."""
    found = run(E.array((2,)), E)
    assert type(found) is ArrayLayout
    texts = [E.text("ndarray", "x"), E.text("numpy", "y"), asm.TUPLE2]
    swapped = [texts, asm.binget(1), asm.binget(0), asm.STACK_GLOBAL, asm.TUPLE2]
    found = run(swapped, E)
    assert (found.values[1].module, found.values[1].name) == ("numpy", "ndarray")
    backwards = [texts, asm.binget(0), asm.binget(1), asm.STACK_GLOBAL, asm.TUPLE2]
    assert refused(backwards, E) == "BK203"


_STATE = asm.tuple_of(
    asm.integer(1), asm.shape_of(2), D.dtype("f4"), asm.FALSE, asm.payload(bytes(8))
)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (asm.global_line("os", "system"), "BK203"),
        ([asm.NONE, asm.binput(0)], "BK217"),
        ([D.text("f4"), asm.NONE, asm.NONE, asm.TUPLE2, asm.binput(0)], "BK214"),
        ([D.text("f4"), asm.binput(9)], "BK216"),
        (asm.binget(9), "BK215"),
        (asm.MARK * 9, "BK221"),
        (asm.EMPTY_TUPLE + asm.TUPLE1 * 9, "BK221"),
        (asm.EMPTY_DICT, "BK313"),
        (b"", "BK328"),
        (asm.integer(1) * 2, "BK328"),
        (asm.TUPLE, "BK328"),
        (asm.REDUCE, "BK328"),
        ([asm.integer(1), asm.EMPTY_TUPLE, asm.REDUCE], "BK328"),
        ([D.dtype_name, asm.integer(1), asm.REDUCE], "BK328"),
        ([D.ndarray, asm.EMPTY_TUPLE, asm.REDUCE], "BK328"),
        ([asm.EMPTY_LIST, asm.EMPTY_TUPLE, asm.BUILD], "BK328"),
        ([asm.integer(1), asm.integer(2), asm.APPEND], "BK328"),
        ([asm.MARK, asm.binput(0)], "BK217"),
        ([asm.list_of(), asm.binget(0), asm.TUPLE2], "BK328"),
        (D.call(zero=asm.shape_of(1)), "BK328"),
        (D.call(typecode=asm.payload(b"c")), "BK328"),
        (D.call(typecode=asm.payload(b"bb")), "BK328"),
        (D.call(subtype=D.dtype_name), "BK328"),
        (D.call(zero=asm.tuple_of(asm.FALSE)), "BK328"),
        (D.call(), "BK329"),
        ([D.dtype_name, asm.tuple_of(D.text("f4"), asm.FALSE, asm.TRUE), asm.REDUCE], "BK329"),
        ([D.array(), _STATE, asm.BUILD], "BK330"),
        ([D.dtype(), asm.tuple_of(), asm.BUILD], "BK330"),
        (D.array((2,), body=asm.payload(bytes(7))), "BK321"),
        (D.array((2,), body=asm.payload(bytes(9))), "BK321"),
        (D.array((2,), body=asm.integer(1)), "BK325"),
        (D.array((2,), version=asm.integer(2)), "BK325"),
        (D.array((2,), version=asm.TRUE), "BK325"),
        (D.array((2,), dims=asm.integer(2)), "BK325"),
        (D.array((2,), state=asm.tuple_of()), "BK325"),
        (D.array((2,), fortran=asm.integer(0)), "BK327"),
        (D.array((2,), fortran=asm.TRUE), "BK327"),
        (D.dtype("f4", version=4), "BK326"),
        (D.dtype("f4", size=4), "BK326"),
        (D.dtype("f4", align=4), "BK326"),
        (D.dtype("f4", flags=1), "BK326"),
        (D.dtype("f4", order=D.order("|")), "BK326"),
        (D.dtype("i1", order=D.order("<")), "BK326"),
        (D.dtype("f4", order=D.order("=")), "BK326"),
        (D.dtype("f4", nones=asm.NONE * 2 + asm.FALSE), "BK326"),
        (D.dtype("f4", arguments=asm.tuple_of(D.text("f4"), asm.TRUE, asm.TRUE)), "BK326"),
        (D.dtype("f4,f4"), "BK340"),
    ],
)
def test_faults(part: Any, code: str) -> None:
    assert refused(part) == code


def test_integers_as_dtype_flags_belong_to_protocol_3() -> None:
    flags = asm.tuple_of(E.text("f4"), asm.integer(0), asm.integer(1))
    assert refused(E.array((2,), dtype=E.dtype(arguments=flags)), E) == "BK326"


def test_a_payload_is_used_once() -> None:
    body = asm.Memo(asm.payload(bytes(8)), "body")
    arrays = [D.array((2,), body=body), D.array((2,), body=body)]
    assert refused(asm.list_of(*arrays)) == "BK320"
    one = asm.Memo(asm.payload(b"x"), "one")
    found = run(asm.list_of(*(D.array((1,), "u1", body=one) for _ in range(3))))
    assert len({value.offset for value, _ in found.pairs}) == 1


def test_a_list_of_itself() -> None:
    assert refused([asm.Memo(asm.EMPTY_LIST), asm.binget(0), asm.APPEND]) == "BK328"


def test_an_unfinished_array_is_not_shared() -> None:
    inside = [asm.EMPTY_LIST, D.call(), asm.APPEND]
    assert refused(inside) == "BK329"
