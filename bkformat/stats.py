"""Statistics of an array's values for people, read in blocks so that memory stays constant.

min, max, mean, std and norm are over the finite values, in float64; zeros is the share of elements
that are zero.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from bkformat.arrays import ArrayLayout
from bkformat.source import Source
from bkformat.values import new_block, read_blocks

__all__ = ["ArrayStats", "array_stats"]


_BLOCK = 1 << 20
"""Bytes at a time; a block is widened to float64, up to four times its size."""


class ArrayStats(NamedTuple):
    """Statistics of one array.

    Attributes:
        min, max, mean, std, norm: over the finite values; None where there is none, or where the
            figure is past the range of float64.
        zeros: share of the elements that are zero, 0 to 1; None for an empty array.
        nan, inf: how many elements are NaN, and how many infinite.
    """

    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    norm: float | None
    zeros: float | None
    nan: int
    inf: int


class _Sums:
    """Running count, mean and squared deviations, merged block by block (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = self.zeros = self.nan = self.inf = 0
        self.mean = self.deviations = self.squares = 0.0
        self.min, self.max = math.inf, -math.inf

    def add(self, values: np.ndarray[Any, Any]) -> None:
        self.nan += int(np.isnan(values).sum())
        self.inf += int(np.isinf(values).sum())
        self.zeros += int(values.size - np.count_nonzero(values))
        finite = values[np.isfinite(values)]
        if not finite.size:
            return
        self.min = min(self.min, float(finite.min()))
        self.max = max(self.max, float(finite.max()))
        wide = finite.astype(np.float64)
        mean = float(wide.mean())
        shift = mean - self.mean
        total = self.count + wide.size
        self.deviations += float(np.square(wide - mean).sum())
        self.deviations += shift * shift * self.count * wide.size / total
        self.mean += shift * wide.size / total
        self.squares += float(np.square(wide).sum())
        self.count = total


def array_stats(source: Source, array: ArrayLayout) -> ArrayStats:
    """Read one array and sum it up; complex values count as their parts."""
    name = {"complex64": "float32", "complex128": "float64"}.get(array.dtype, array.dtype)
    dtype = np.dtype(name).newbyteorder("<")
    sums = _Sums()
    block = new_block(min(array.nbytes, _BLOCK))
    with np.errstate(all="ignore"):
        for _, part in read_blocks(source, array.offset, 0, array.nbytes, block):
            sums.add(part.view(dtype))
    size = array.nbytes // dtype.itemsize
    zeros = sums.zeros / size if size else None
    if not sums.count:
        return ArrayStats(None, None, None, None, None, zeros, sums.nan, sums.inf)
    std, norm = math.sqrt(sums.deviations / sums.count), math.sqrt(sums.squares)
    return ArrayStats(
        _finite(sums.min), _finite(sums.max), _finite(sums.mean), _finite(std), _finite(norm),
        zeros, sums.nan, sums.inf,
    )  # fmt: skip


def _finite(figure: float) -> float | None:
    """Sums of squares overflow past 1e154; JSON has no infinity."""
    return figure if math.isfinite(figure) else None
