"""One array of an update: what its pickled state says, judged.

    state   (1, shape, dtype, is_fortran, bytes)
    shape   at most 32 dimensions, each 0 to 2**63-1; their product in bytes at most 2**63-1,
            zeros left out of the product: numpy multiplies them so, and fails past that
    bytes   exactly product x itemsize

Source: numpy ndarray.__reduce__ and __setstate__ (numpy/_core/src/multiarray/methods.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal, NamedTuple

from bkformat import rules
from bkformat.dtypes import ITEMSIZES
from bkformat.findings import Rejected

__all__ = ["ALIGNMENT", "MAX_DIMENSIONS", "ArrayLayout", "judge_shape"]

ALIGNMENT = 64
"""Bytes: what XLA and Arrow ask for, and where the canonical form puts every payload."""

MAX_DIMENSIONS = 32
_INT64_MAX = 2**63 - 1


class ArrayLayout(NamedTuple):
    """Where one array lies in the file and how to read it.

    Attributes:
        dtype: name such as "float32"; refused ones have numpy's text, such as ">f4" or "S5".
        shape: elements along each axis.
        order: "C" or "F": which index of the stored elements runs fastest, the last or the first.
        offset: bytes from the start of the file to the first element.
        nbytes: bytes of all elements.
    """

    dtype: str
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    offset: int
    nbytes: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element; 1 for a dtype that an update can't hold."""
        return ITEMSIZES.get(self.dtype, 1)

    @property
    def aligned(self) -> bool:
        """Whether the elements begin at a multiple of 64 bytes; an empty array always does."""
        return not self.nbytes or self.offset % ALIGNMENT == 0


def judge_shape(dims: Sequence[Any], itemsize: int, offset: int) -> int:
    """Bytes that an array of this shape takes.

    Args:
        dims: what the pickle says stands for each dimension, of any type.
        itemsize: bytes of one element.
        offset: where to report a breach, bytes from the start of the file.

    Raises:
        Rejected: BK322 to BK324.
    """
    if len(dims) > MAX_DIMENSIONS:
        raise Rejected(rules.TOO_MANY_DIMENSIONS, offset, f"{len(dims)} dimensions")
    nonzero = itemsize or 1
    for dim in dims:
        if type(dim) is not int or not 0 <= dim <= _INT64_MAX:
            shown = dim if isinstance(dim, (bool, int, float, str)) else type(dim).__name__
            raise Rejected(rules.DIMENSION_RANGE, offset, f"a dimension is {shown!r}")
        nonzero *= dim or 1
    if nonzero > _INT64_MAX:
        shape = ", ".join(map(str, dims))
        raise Rejected(rules.SHAPE_OVERFLOW, offset, f"the shape ({shape}) overflows")
    nbytes: int = prod(dims) * itemsize
    return nbytes
