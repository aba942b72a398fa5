"""Elements of two arrays side by side, whatever their orders."""

from __future__ import annotations

from math import isqrt, prod

import numpy as np
import pytest

from bkformat import ArrayLayout
from bkformat.pairs import BLOCK, Stored, read_pairs
from bkformat.source import BytesSource

from .files import Array

SHAPES = [
    (),
    (7,),
    (0, 3),
    (3, 0, 5),
    (1, 9),
    (60, 70),
    (1000, 3),
    (3, 1000),
    (3, 3, 20, 31),
    (2, 500, 3),
    (7, 1, 9, 1, 11),
    (2,) * 11,
    (1,) * 30 + (5, 6),
]


class Counting(BytesSource):
    """Counts reads and bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.lengths: list[int] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.lengths.append(len(buffer))
        super().read_into(offset, buffer)


def stored(array: Array, order: str) -> Stored:
    data = array.tobytes(order)  # type: ignore[arg-type]
    layout = ArrayLayout(array.dtype.name, array.shape, order, 3, len(data))  # type: ignore[arg-type]
    return Stored(Counting(b"abc" + data), layout)


@pytest.mark.parametrize("box", [64, 1000, 1 << 21])
@pytest.mark.parametrize("orders", ["CC", "FF", "CF", "FC"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_element_stands_beside_its_own(shape: tuple[int, ...], orders: str, box: int) -> None:
    array = np.arange(prod(shape), dtype="f4").reshape(shape)
    a, b = stored(array, orders[0]), stored(array.astype("i8"), orders[1])
    seen = []
    for part_a, part_b in read_pairs(a, b, box):
        assert len(part_a) <= BLOCK
        assert np.array_equal(part_a, part_b)
        seen.append(part_a.copy())
    assert sorted(np.concatenate(seen).tolist() if seen else []) == list(range(prod(shape)))
    for one in (a, b):
        assert isinstance(one.source, Counting)
        assert sum(one.source.lengths) == one.array.nbytes


@pytest.mark.parametrize(
    "shape", [(400, 500), (9, 9, 40, 41), (100_000, 2), (2, 3, 50_000)], ids=str
)
def test_reads_are_not_short(shape: tuple[int, ...]) -> None:
    """The reads of other orders grow with the array, not with its shape."""
    array = np.zeros(shape, "f4")
    a, b = stored(array, "C"), stored(array, "F")
    for _ in read_pairs(a, b, 1 << 14):
        pass
    for one in (a, b):
        assert isinstance(one.source, Counting)
        assert min(one.source.lengths) >= isqrt(1 << 12) // 4 * 4


def test_bools_are_bytes() -> None:
    layout = ArrayLayout("bool", (3,), "C", 0, 3)
    one = Stored(BytesSource(b"\0\1\2"), layout)
    assert [part.tolist() for part, _ in read_pairs(one, one)] == [[0, 1, 2]]
