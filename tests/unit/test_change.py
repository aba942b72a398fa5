"""Figures of a change, known by hand."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from bkformat import ArrayLayout
from bkformat.change import Change, Tally
from bkformat.pairs import BLOCK, Stored
from bkformat.source import BytesSource

from .files import Array

INF, NAN = math.inf, math.nan


def stored(array: Array) -> Stored:
    layout = ArrayLayout(array.dtype.name, array.shape, "C", 0, array.nbytes)
    return Stored(BytesSource(array.tobytes()), layout)


def change(a: Array, b: Array) -> Change:
    tally = Tally()
    tally.compare(stored(a), stored(b))
    return tally.change()


def of(dtype: str, a: list[object], b: list[object], dtype_b: str | None = None) -> Change:
    return change(np.array(a, dtype), np.array(b, dtype_b or dtype))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "complex64"])
def test_by_hand(dtype: str) -> None:
    found = of(dtype, [3, 4, 0, 1], [3, 0, 0, 3])
    assert found == Change(
        4, False, 2, 4, 2, math.sqrt(20), math.sqrt(26), math.sqrt(18),
        pytest.approx(12 / math.sqrt(468)), 0, 0, 0, 0,
    )  # fmt: skip


def test_nothing_changed() -> None:
    found = of("float32", [3, -4], [3, -4])
    assert found == (2, True, 0, 0, 0, 0, 5, 5, 1, 0, 0, 0, 0)
    assert not found.bits_alone
    assert of("float32", [3, -4], [-3, 4]).cosine == -1
    assert of("float32", [3, 0], [0, 3]).cosine == 0


def test_the_relative_change_is_over_what_is_not_zero_in_a() -> None:
    assert of("float32", [0, 2], [5, 3]).max_rel == 0.5
    assert of("float32", [0, 0], [5, 3]).max_rel is None
    assert of("float32", [5, 3], [0, 0]).max_rel == 1
    assert of("float32", [0, 0], [0, 0]).cosine is None


@pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
def test_no_dimension_and_no_element(shape: tuple[int, ...]) -> None:
    found = change(np.full(shape, 2, "f4"), np.full(shape, 5, "f4"))
    if shape:
        assert found == (0, True, 0, None, None, None, None, None, None, 0, 0, 0, 0)
    else:
        assert found[:8] == (1, False, 1, 3, 1.5, 3, 2, 5)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    found = of("float32", [NAN, 1, INF, 3, INF, 2], [NAN, INF, INF, 4, -INF, NAN])
    assert found.num_different == 4  # not NaN and NaN, nor infinity and infinity
    assert (found.max_abs, found.norm, found.norm_a, found.norm_b) == (1, 1, 3, 4)
    assert found[-4:] == (1, 2, 2, 3)
    assert not found.finite
    none = of("float64", [NAN], [1])
    assert none[2:9] == (1, None, None, None, None, None, None)
    same = of("float64", [NAN, -INF, 2], [NAN, -INF, 2])
    assert same == (3, True, 0, 0, 0, 0, 2, 2, 1, 1, 1, 1, 1)
    # In another place, though as many.
    moved = of("float32", [NAN, 1], [1, NAN])
    assert (moved.num_different, moved.bits_alone) == (2, False)


def test_nothing_but_bits_differs() -> None:
    found = of("float32", [0.0, 1], [-0.0, 1])
    assert (found.identical, found.num_different, found.max_abs) == (False, 0, 0)
    assert found.bits_alone
    bits = np.array([0x7FC00000, 0x7FC00001], "u4").view("f4")
    found = change(bits[:1], bits[1:])
    assert found.bits_alone
    tally = Tally()
    true, other = (
        Stored(BytesSource(x), ArrayLayout("bool", (1,), "C", 0, 1)) for x in (b"\1", b"\2")
    )
    tally.compare(true, other)
    assert tally.change().bits_alone


def test_integers_are_exact() -> None:
    found = of("int64", [-(2**63)], [2**63 - 1])
    assert found.max_abs == 2**64 - 1
    assert isinstance(found.max_abs, int)
    assert of("int64", [2**63 - 1], [-(2**63)]).max_abs == 2**64 - 1
    assert of("int64", [2**62], [2**62 + 1])[:4] == (1, False, 1, 1)
    assert of("uint64", [2**64 - 1, 0], [2**64 - 2, 0]).max_abs == 1
    assert of("uint64", [2**64 - 2], [2**64 - 1]).norm == 1
    assert of("int8", [-128], [127]).max_abs == 255
    assert of("uint8", [0], [255]).max_abs == 255
    found = of("bool", [True, False], [True, True])
    assert (found.max_abs, found.norm, found.num_different) == (1, 1, 1)
    assert isinstance(found.max_abs, int)
    assert isinstance(of("int32", [1], [1]).max_abs, int)


def test_complex_elements_are_numbers() -> None:
    found = of("complex64", [0, 3 + 4j], [3 + 4j, 3 + 4j])
    assert (found.num_elements, found.num_different) == (2, 1)
    assert (found.max_abs, found.norm, found.norm_a) == (5, 5, 5)
    found = of("complex128", [1, complex(NAN, INF), 1], [2, complex(NAN, INF), complex(1, INF)])
    assert found[-4:] == (1, 1, 0, 1)
    assert (found.max_abs, found.num_different) == (1, 2)


def test_squares_neither_overflow_nor_vanish() -> None:
    assert of("float32", [1e38, 0], [3e38, 0]).norm == pytest.approx(2e38, rel=1e-6)
    found = of("float64", [3e200, 0], [3e200, 4e200])
    assert (found.norm, found.norm_a) == (4e200, 3e200)
    assert found.norm_b == pytest.approx(5e200, rel=1e-15)
    assert found.cosine == pytest.approx(0.6)
    found = of("float64", [3e-200, 0], [3e-200, 4e-200])
    assert found.norm == pytest.approx(4e-200, rel=1e-15)
    assert found.norm_b == pytest.approx(5e-200, rel=1e-15)
    assert found.cosine == pytest.approx(0.6)
    assert of("float64", [5e-324], [1e-323]).norm == 5e-324
    # Blocks of other magnitudes are one sum.
    long = np.zeros(2 * BLOCK)
    long[0], long[-1] = 3e200, 4e200
    assert change(np.zeros_like(long), long).norm == pytest.approx(5e200, rel=1e-15)


def test_past_float64_is_none() -> None:
    found = of("float64", [1.7e308, 1], [-1.7e308, 1])
    assert (found.max_abs, found.norm, found.num_different) == (None, None, 1)
    assert found.cosine == -1
    assert found.max_rel == 2
    assert of("float64", [1e308] * 9, [1e308] * 9).norm_a is None
    assert of("float64", [1e-300], [1e300]).max_rel is None


def test_other_dtypes_are_compared_by_value() -> None:
    found = of("float32", [1, 2], [1, 2], "float64")
    assert found.bits_alone
    assert of("float32", [0.1], [0.1], "float64").max_abs == abs(
        0.1 - struct.unpack("f", struct.pack("f", 0.1))[0]
    )
    assert not of("float32", [], [], "float64").identical
    assert of("int64", [-1], [2**64 - 1], "uint64").max_abs == 2**64
    assert of("bool", [True], [3], "int8").max_abs == 2
    assert of("complex64", [1j], [1], "float32").max_abs == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize("at", [0, -1])
def test_every_block_counts(size: int, at: int) -> None:
    a = np.ones(size, "f4")
    b = a.copy()
    b[at] = 3
    found = change(a, b)
    assert found[:6] == (size, False, 1, 2, 2, 2)
    assert found.norm_a == pytest.approx(math.sqrt(size), rel=1e-12)
    assert found.norm_b == pytest.approx(math.sqrt(size + 8), rel=1e-12)


def test_many_arrays_as_one() -> None:
    total = Tally()
    for a, b in (([3.0], [3.0]), ([0.0], [4.0]), ([NAN, 12], [1, 12])):
        tally = Tally()
        tally.compare(stored(np.array(a)), stored(np.array(b)))
        total.merge(tally)
    assert total.change() == of("float64", [3, 0, NAN, 12], [3, 4, 1, 12])
    assert Tally().change() == (0, True, 0, *[None] * 6, 0, 0, 0, 0)
