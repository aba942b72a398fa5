"""Stage 4: values, at every place where a block or a vector register begins or ends."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest

from bkformat import ArrayLayout, Finding, UpdateChangedError, check_bytes, values
from bkformat.source import BytesSource
from bkformat.values import BLOCK, ValueRules, hash_and_judge, judge_values, new_block

from .files import update

_FLOATS = ["float16", "float32", "float64"]


def judged(array: Any, wanted: ValueRules | None = None, *, jobs: int = 1) -> list[Finding]:
    """The findings of one array, which must be the same by both ways of reading it."""
    wanted = wanted or ValueRules()
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    data = array.tobytes(order)
    layout = ArrayLayout(array.dtype.name, array.shape, order, 5, len(data))
    source = BytesSource(b"12345" + data + b"67")
    found = judge_values(source, [layout], wanted, jobs=jobs)
    structure = [(0, b"12345"), (5 + len(data), b"67")]
    digest, hashed = hash_and_judge(source, structure, [layout], wanted)
    assert hashed == found
    assert digest == hashlib.sha256(b"12345" + data + b"67").hexdigest()
    return found


def codes(found: list[Finding]) -> list[str]:
    return [finding.code for finding in found]


@pytest.mark.parametrize("dtype", _FLOATS)
def test_every_lane(dtype: str) -> None:
    """One bad value at each place of a short array."""
    for length in (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 130):
        array = np.ones(length, dtype)
        assert not judged(array)
        for at in range(length):
            for bad, code in ((math.nan, "BK401"), (math.inf, "BK402"), (-math.inf, "BK402")):
                array[at] = bad
                found = judged(array)
                assert codes(found) == [code]
                assert found[0].offset == 5 + at * array.itemsize
                assert f"1 of {length:,} values" in found[0].message
                assert f"[{at}]" in found[0].message
                array[at] = 1


@pytest.mark.parametrize("dtype", _FLOATS)
@pytest.mark.parametrize("extra", [-1, 0, 1, 1000])
def test_every_border_of_a_block(dtype: str, extra: int) -> None:
    block = BLOCK // np.dtype(dtype).itemsize
    length = 2 * block + extra
    array = np.zeros(length, dtype)
    for at in {0, 1, block - 1, block, block + 1, 2 * block - 1, 2 * block, length - 1}:
        if at >= length:
            continue
        array[at] = math.nan
        found = judged(array)
        assert codes(found) == ["BK401"]
        assert found[0].offset == 5 + at * array.itemsize
        array[at] = 0
    assert not judged(array)


@pytest.mark.parametrize("size", [values._SMALL - 4, values._SMALL, values._SMALL + 4])
def test_both_sides_of_what_is_read_at_once(size: int) -> None:
    array = np.zeros(size // 4, "f4")
    assert not judged(array)
    array[-1] = math.inf
    assert codes(judged(array)) == ["BK402"]


def test_counts_and_first_place_over_blocks() -> None:
    block = BLOCK // 4
    array = np.zeros((5, block), "f4")
    array[3, 7] = array[4, block - 1] = math.nan
    array[1, 2:5] = math.inf
    array[2, 0] = -math.inf
    nan, inf = judged(array)
    assert (nan.code, inf.code) == ("BK401", "BK402")
    assert f"2 of {array.size:,} values are NaN, the first at [3, 7]" in nan.message
    assert f"4 of {array.size:,} values are infinite, the first at [1, 2]" in inf.message
    assert nan.offset == 5 + 4 * (3 * block + 7)
    assert nan.where == inf.where == "parameters[0]"


def test_threads_find_what_one_finds() -> None:
    """More than one segment, so that the threads share the work."""
    assert values._SEGMENT == 8 * BLOCK
    rng = np.random.default_rng(3)
    array = np.zeros(5 * values._SEGMENT // 4 + 77, "f4")
    array[rng.integers(0, array.size, 1000)] = math.nan
    array[rng.integers(0, array.size, 1000)] = -math.inf
    array[-1] = math.nan
    one = judged(array, ValueRules(max_abs=3.0))
    assert codes(one) == ["BK401", "BK402", "BK506"]
    count = int(np.isnan(array).sum())
    assert f"{count:,} of {array.size:,} values are NaN" in one[0].message
    for _ in range(3):
        assert judged(array, ValueRules(max_abs=3.0), jobs=2) == one
    several = np.split(array[: 4 * (array.size // 4)], 4)
    layouts = [
        ArrayLayout("float32", part.shape, "C", at * part.nbytes, part.nbytes)
        for at, part in enumerate(several)
    ]
    source = BytesSource(array.tobytes())
    assert judge_values(source, layouts, ValueRules(), jobs=2) == judge_values(
        source, layouts, ValueRules()
    )


@pytest.mark.parametrize("dtype", _FLOATS)
def test_finite_extremes(dtype: str) -> None:
    """Squares and sums of these overflow; none of them is infinite."""
    info = np.finfo(dtype)
    values_of = [info.max, info.min, info.tiny, -info.tiny, info.smallest_subnormal, -0.0, 0.0]
    array = np.array(values_of * 100, dtype)
    assert not judged(array)
    array[350] = math.nan
    assert codes(judged(array)) == ["BK401"]


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7C01, 0xFC01, 0x7E00, 0xFE00, 0x7FFF, 0xFFFF])
def test_every_edge_of_the_float16_patterns(bits: int) -> None:
    array = np.array([0x7BFF, 0xFBFF, 0x8000, 0, 0x0001, 0x8001], np.uint16).view("f2")
    assert not judged(array)
    array.view(np.uint16)[3] = bits
    expected = "BK402" if bits in (0x7C00, 0xFC00) else "BK401"
    assert codes(judged(array)) == [expected]


def test_signalling_nans() -> None:
    array = np.array([0, 0x7F800001, 0xFF800001, 0], np.uint32).view("f4")
    assert "2 of 4" in judged(array)[0].message
    assert codes(judged(array)) == ["BK401"]


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_values_count_as_two(dtype: str) -> None:
    array = np.zeros((2, 3), dtype)
    assert not judged(array)
    array[1, 0] = complex(1, math.nan)
    (found,) = judged(array)
    assert "1 of 12 values are NaN, the first at [1, 0]" in found.message
    assert found.offset == 5 + 3 * array.itemsize + array.itemsize // 2
    assert codes(judged(np.full(3, 5j, dtype), ValueRules(max_abs=4))) == ["BK506"]


def test_complex_values_through_a_schema() -> None:
    from bkformat import UpdateSchema

    schema = UpdateSchema.model_validate({"version": 1, "dtypes": ["complex64"]})
    array = np.zeros(9, "c8")
    assert check_bytes(update(array), schema=schema).valid
    array[8] = complex(math.inf, 0)
    assert codes(list(check_bytes(update(array), schema=schema).findings)) == ["BK402"]
    assert codes(list(check_bytes(update(array)).findings)) == ["BK332", "BK402"]


def test_the_index_in_fortran_order() -> None:
    array = np.zeros((3, 4, 5), "f4", order="F")
    array[2, 1, 3] = math.nan
    (found,) = judged(array)
    assert "the first at [2, 1, 3]" in found.message
    assert found.offset == 5 + 4 * (2 + 1 * 3 + 3 * 12)
    scalar = np.array(math.nan, "f8")
    assert "the first at []" in judged(scalar)[0].message


_INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("dtype", _INTEGERS)
def test_max_abs_of_integers(dtype: str) -> None:
    info = np.iinfo(dtype)
    array = np.array([0, 100, 99], dtype)
    assert not judged(array)
    assert not judged(array, ValueRules(max_abs=100))
    assert codes(judged(array, ValueRules(max_abs=99.5))) == ["BK506"]
    for extreme in {info.min, info.max} - {0}:
        # abs() of the smallest integer is negative.
        array[1] = extreme
        (found,) = judged(array, ValueRules(max_abs=99))
        assert (found.code, found.offset) == ("BK506", 5 + array.itemsize)
        assert "1 of 3 values are past 99 in magnitude, the first at [1]" in found.message
        assert not judged(array, ValueRules(max_abs=1e30))


@pytest.mark.parametrize("dtype", _FLOATS)
def test_max_abs_of_floats(dtype: str) -> None:
    array = np.array([0.5, -2.0, 2.0, -0.0], dtype)
    assert not judged(array, ValueRules(max_abs=2))
    (found,) = judged(array, ValueRules(max_abs=1.5))
    assert "2 of 4 values are past 1.5 in magnitude, the first at [1]" in found.message
    assert "4 of 4" not in found.message
    assert codes(judged(array, ValueRules(max_abs=0))) == ["BK506"]
    assert not judged(array, ValueRules(max_abs=1e300))


@pytest.mark.parametrize("dtype", _FLOATS)
@pytest.mark.parametrize("bound", [1.0, 1e6, 1e300])
def test_an_infinite_value_is_past_every_bound(dtype: str, bound: float) -> None:
    array = np.array([0, -math.inf], dtype)
    assert codes(judged(array, ValueRules(finite=False, max_abs=bound))) == ["BK506"]


def test_nan_is_past_no_bound() -> None:
    array = np.array([math.nan, 1], "f4")
    assert codes(judged(array, ValueRules(max_abs=2))) == ["BK401"]
    assert not judged(array, ValueRules(finite=False, max_abs=2))


def test_what_is_not_looked_at() -> None:
    bad = np.array([math.nan], "f4")
    assert not judged(bad, ValueRules(finite=False))
    assert not judged(np.array([True, False]), ValueRules(max_abs=0))
    assert not judged(np.zeros((0, 3), "f4"))
    layout = ArrayLayout(">f4", (1,), "C", 0, 4)
    assert not judge_values(BytesSource(b"\x7f\x80\0\0"), [layout], ValueRules())
    assert hash_and_judge(BytesSource(bad.tobytes()), [], [layout], None)[1] == []


def test_arrays_are_told_apart() -> None:
    bad = np.array([math.nan, 1], "f4").tobytes()
    layouts = [ArrayLayout("float32", (2,), "C", at, 8) for at in (0, 8, 16)]
    source = BytesSource(bytes(8) + bad + bad)
    found = judge_values(source, layouts, ValueRules())
    assert [(f.where, f.offset) for f in found] == [("parameters[1]", 8), ("parameters[2]", 16)]
    twice = judge_values(source, [layouts[1]] * 2, ValueRules())
    assert [f.where for f in twice] == ["parameters[0]"]


def test_a_byte_that_two_arrays_share_is_judged_for_both() -> None:
    layouts = [ArrayLayout("uint8", (1,), "C", 3, 1), ArrayLayout("int8", (1, 1), "C", 3, 1)]
    source = BytesSource(b"abcdef")
    wanted = ValueRules(max_abs=9)
    found = judge_values(source, layouts, wanted)
    assert [f.where for f in found] == ["parameters[0]", "parameters[1]"]
    assert hash_and_judge(source, [(0, b"abc"), (4, b"ef")], layouts, wanted)[1] == found


def test_hashing_compares_the_structure() -> None:
    source = BytesSource(b"abc" + bytes(8) + b"xyz")
    with pytest.raises(UpdateChangedError):
        hash_and_judge(source, [(0, b"abc"), (11, b"xyZ")], [], None)
    with pytest.raises(UpdateChangedError):
        hash_and_judge(source, [(0, b"Abc")], [], None)


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_the_hash_is_hashlib_s(nbytes: int) -> None:
    data = np.random.default_rng(nbytes).bytes(nbytes)
    assert hash_and_judge(BytesSource(data), [], [], None) == (hashlib.sha256(data).hexdigest(), [])
    middle = nbytes // 2
    pieces = [(0, data[:3]), (middle, data[middle : middle + 7])] if nbytes > 20 else []
    assert (
        hash_and_judge(BytesSource(data), pieces, [], None)[0] == hashlib.sha256(data).hexdigest()
    )


@pytest.mark.parametrize("nbytes", [1, 63, BLOCK, BLOCK + 1])
def test_blocks_are_aligned(nbytes: int) -> None:
    block = new_block(nbytes)
    assert len(block) == min(nbytes, BLOCK)
    assert block.__array_interface__["data"][0] % 64 == 0


def test_progress_counts_every_byte_that_is_judged() -> None:
    array = np.zeros(3 * BLOCK // 4, "f4")
    done: list[int] = []
    layout = ArrayLayout("float32", array.shape, "C", 0, array.nbytes)
    judge_values(BytesSource(array.tobytes()), [layout], ValueRules(), progress=done.append)
    assert sum(done) == array.nbytes
