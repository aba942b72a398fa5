"""The elements of two arrays of one shape, side by side, in blocks: memory stays constant.

Where both are stored in one order, equal indices stand at equal places. Where one is in C order
and the other in F order, they are read box by box. A box is long along the last axes, which lie
together in one file, and along the first, which lie together in the other:

    (4096, 4096) of float32    boxes of 683 rows and columns, 36 of them
    reads                      683 of 2.7 KiB for a box and file
    every element              is read once from each file

No read but of a whole array is shorter than a quarter of the square root of a box, in elements,
so the reads grow with the size of the arrays and not with their shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.source import Source
from bkformat.values import new_block, read_blocks

__all__ = ["BLOCK", "Stored", "read_pairs"]

BLOCK = 1 << 15
"""Elements at a time: few enough for what is made of them to stay in the cache."""

_BOX = 1 << 21
"""Bytes of a box, at most."""

_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype("uint8" if name == "bool" else name).newbyteorder("<") for name in ITEMSIZES
}

Block = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Stored(NamedTuple):
    """An array and the file that it is in."""

    source: Source
    array: ArrayLayout

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements; a bool is the byte that it is stored in, which may be any."""
        return _DTYPES[self.array.dtype]


def read_pairs(a: Stored, b: Stored, box: int = _BOX) -> Iterator[Block]:
    """The elements of both in one order, at most BLOCK at a time, as arrays of one dimension.

    The arrays are overwritten one after another.

    Args:
        a: an array of a dtype that may be in an update.
        b: another of the same shape.
        box: bytes read at a time where the orders differ.

    Raises:
        UpdateChangedError: a file was cut short meanwhile.
    """
    axes = sum(dim > 1 for dim in a.array.shape)
    one_order = a.array.order == b.array.order or axes <= 1 or not a.array.size
    yield from _in_step(a, b) if one_order else _by_boxes(a, b, box)


def _in_step(a: Stored, b: Stored) -> Iterator[Block]:
    yield from zip(_parts(a), _parts(b), strict=True)


def _parts(stored: Stored) -> Iterator[np.ndarray[Any, Any]]:
    array, dtype = stored.array, stored.dtype
    block = new_block(min(array.nbytes, BLOCK * dtype.itemsize))
    for _, part in read_blocks(stored.source, array.offset, 0, array.nbytes, block):
        yield part.view(dtype)


# --- C order beside F order ------------------------------------------------------------------


def _by_boxes(a: Stored, b: Stored, box: int) -> Iterator[Block]:
    shape = a.array.shape
    steps = _box_of(shape, box // max(a.dtype.itemsize, b.dtype.itemsize))
    for spans in product(*map(_spans, shape, steps)):
        start = [first for first, _ in spans]
        dims = [last - first for first, last in spans]
        part_a, part_b = (np.ravel(_read_box(stored, start, dims)) for stored in (a, b))
        for at in range(0, len(part_a), BLOCK):
            yield part_a[at : at + BLOCK], part_b[at : at + BLOCK]


def _box_of(shape: Sequence[int], most: int) -> list[int]:
    """Elements of a box along each axis, at most `most` together.

    Half of a box, in the logarithm, goes to the axes that lie together in C order, half to those
    that do in F order. Where the two meet in one axis, it gets what is left.
    """
    if prod(shape) <= most:
        return list(shape)
    last, first = (_filled(dims, isqrt(most)) for dims in (shape[::-1], shape))
    steps = [max(pair) for pair in zip(first, last[::-1], strict=True)]
    for axis, step in enumerate(steps):
        if 1 < step < shape[axis]:
            steps[axis] = min(shape[axis], max(1, most * step // prod(steps)))
    return steps


def _spans(dim: int, step: int) -> list[tuple[int, int]]:
    """An axis in parts of at most `step`, as even as they come."""
    count = -(-dim // step)
    bounds = [dim * at // count for at in range(count + 1)]
    return list(pairwise(bounds))


def _filled(shape: Sequence[int], most: int) -> list[int]:
    """Elements along each axis where the first axes are taken whole, `most` together."""
    steps = []
    for dim in shape:
        steps.append(max(1, min(dim, most)))
        most //= max(dim, 1)
    return steps


def _read_box(stored: Stored, start: Sequence[int], dims: Sequence[int]) -> np.ndarray[Any, Any]:
    """The elements at `start` and after it along each axis, `dims` of them."""
    array, dtype = stored.array, stored.dtype
    if array.order == "F":  # the same bytes are the transposed array in C order
        turned = Stored(stored.source, array._replace(shape=array.shape[::-1], order="C"))
        box: np.ndarray[Any, Any] = _read_box(turned, start[::-1], dims[::-1]).T
        return box
    data = np.empty(prod(dims) * dtype.itemsize, np.uint8)
    axis = len(dims) - 1
    while axis and dims[axis] == array.shape[axis]:
        axis -= 1
    run = prod(dims[axis:]) * dtype.itemsize
    strides = [prod(array.shape[at + 1 :]) * dtype.itemsize for at in range(len(dims))]
    offsets = [array.offset + sum(map(int.__mul__, start, strides))]
    for dim, stride in zip(dims[:axis], strides[:axis], strict=True):
        offsets = [offset + index * stride for offset in offsets for index in range(dim)]
    view = data.data
    for at, offset in enumerate(offsets):
        stored.source.read_into(offset, view[at * run : (at + 1) * run])
    return data.view(dtype).reshape(dims)
