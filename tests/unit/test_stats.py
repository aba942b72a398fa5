"""Statistics, held against numpy on whole arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bkformat import ArrayLayout
from bkformat.source import BytesSource
from bkformat.stats import ArrayStats, array_stats

from .files import Array


def stats(array: Array) -> ArrayStats:
    layout = ArrayLayout(array.dtype.name, array.shape, "C", 3, array.nbytes)
    return array_stats(BytesSource(b"abc" + array.tobytes()), layout)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", "int64"])
@pytest.mark.parametrize("size", [1, 1000, 600_001])
def test_numbers(dtype: str, size: int) -> None:
    array = np.random.default_rng(size).integers(0, 100, size).astype(dtype)
    found, wide = stats(array), array.astype("f8")
    assert (found.min, found.max) == (wide.min(), wide.max())
    assert found.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert found.std == pytest.approx(wide.std(), rel=1e-9, abs=1e-12)
    assert found.norm == pytest.approx(np.linalg.norm(wide), rel=1e-12)
    assert found.zeros == pytest.approx((array == 0).mean())
    assert (found.nan, found.inf) == (0, 0)


def test_over_the_finite_values() -> None:
    array = np.array([math.nan, 1, math.inf, 3, -math.inf, 0], "f4")
    found = stats(array)
    assert found[:3] == (0, 3, pytest.approx(4 / 3))
    assert (found.nan, found.inf, found.zeros) == (1, 2, pytest.approx(1 / 6))
    assert stats(np.array([math.nan])) == ArrayStats(None, None, None, None, None, 0.0, 1, 0)
    assert stats(np.zeros((0, 3), "f4")) == ArrayStats(None, None, None, None, None, None, 0, 0)


def test_what_is_past_float64_is_none() -> None:
    found = stats(np.array([1e300, -1e300]))
    assert (found.min, found.max, found.norm, found.std) == (-1e300, 1e300, None, None)


def test_complex_and_bool() -> None:
    assert stats(np.array([3 + 4j], "c8"))[:2] == (3, 4)
    found = stats(np.array([True, False, False, True]))
    assert (found.min, found.max, found.mean, found.zeros) == (0, 1, 0.5, 0.5)
