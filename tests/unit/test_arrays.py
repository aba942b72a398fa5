"""One array: its shape and what it takes."""

from __future__ import annotations

import pytest

from bkformat import ArrayLayout
from bkformat.arrays import MAX_DIMENSIONS, judge_shape
from bkformat.findings import Rejected


@pytest.mark.parametrize(
    ("dims", "itemsize", "nbytes"),
    [
        ((), 4, 4),
        ((0,), 4, 0),
        ((3, 4), 2, 24),
        ((0, 2**61 - 1), 4, 0),
        ((1,) * 32, 8, 8),
        ((2**63 - 1,), 1, 2**63 - 1),
        ((2**60 - 1,), 8, 2**63 - 8),
    ],
)
def test_bytes(dims: tuple[int, ...], itemsize: int, nbytes: int) -> None:
    assert judge_shape(dims, itemsize, 0) == nbytes


@pytest.mark.parametrize(
    ("dims", "code"),
    [
        ((1,) * (MAX_DIMENSIONS + 1), "BK322"),
        ((-1,), "BK323"),
        ((True,), "BK323"),
        ((2.0,), "BK323"),
        (("2",), "BK323"),
        ((None,), "BK323"),
        ((2**63,), "BK323"),
        ((0, 2**63), "BK323"),
        ((2**32, 2**31), "BK324"),
        ((2**61, 0), "BK324"),
        ((2**61,), "BK324"),
    ],
)
def test_faults(dims: tuple[object, ...], code: str) -> None:
    with pytest.raises(Rejected) as caught:
        judge_shape(dims, 4, 77)
    assert (caught.value.finding.code, caught.value.finding.offset) == (code, 77)


def test_properties() -> None:
    array = ArrayLayout("float32", (3, 4), "C", 128, 48)
    assert (array.size, array.itemsize, array.aligned) == (12, 4, True)
    assert not array._replace(offset=127).aligned
    assert array._replace(offset=127, nbytes=0, shape=(0,)).aligned
    assert array._replace(shape=()).size == 1
    assert array._replace(dtype="S5").itemsize == 1
