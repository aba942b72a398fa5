"""Arrays on their way into a file: a name, a signature, and the bytes in blocks.

Whatever the order in memory or in another file, the blocks of a member are its elements in C order
and little-endian. None is larger than BLOCK, but for arrays that lie in memory in that very form:
those are not copied.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.source import Source
from bkformat.values import BLOCK

__all__ = [
    "NAMES",
    "Content",
    "Member",
    "array_member",
    "little_endian",
    "plain_member",
    "refuse_garbage",
    "source_member",
    "stored_member",
]

_IN_MEMORY = 1 << 24
"""Bytes of an array in another order that is turned in memory; a larger one goes through a file."""

_COPIED = 1 << 10
"""Bytes of an array that is copied at once: asking it again costs more."""


class Member(NamedTuple):
    """One array that is to be written.

    Attributes:
        name: of the parameter, or None.
        dtype: numpy's name, such as "float32".
        shape: elements along each axis.
        blocks: gives the elements as bytes, in C order and little-endian, whenever it is called.
    """

    name: str | None
    dtype: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[bytes | memoryview]]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * ITEMSIZES[self.dtype]


class Content(NamedTuple):
    """All that a file holds.

    Attributes:
        num_samples: samples behind it; None for an aggregate of arrays alone.
        members: the arrays in the order of the model.
        ordered: whether the file says that this is their order.
    """

    num_samples: int | None
    members: list[Member]
    ordered: bool = True


_LITTLE_ENDIAN: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<") for name in ITEMSIZES
}
NAMES = {dtype: name for name, dtype in _LITTLE_ENDIAN.items()}
"""Names of the dtypes as they are stored; numpy takes microseconds to find one."""


def little_endian(name: str) -> np.dtype[Any]:
    """The dtype of that name, as it is stored."""
    return _LITTLE_ENDIAN[name]


def array_member(name: str | None, array: np.ndarray[Any, Any], dtype: str | None = None) -> Member:
    """A member of an array in memory, converted to `dtype` if that is given."""
    target = dtype or NAMES.get(array.dtype) or array.dtype.name
    if NAMES.get(array.dtype) == target:
        return plain_member(name, array, target)
    return Member(name, target, array.shape, partial(_array_blocks, array, target))


def plain_member(name: str | None, array: np.ndarray[Any, Any], dtype: str) -> Member:
    """A member of an array that is of `dtype` and little-endian already."""
    if array.nbytes <= _COPIED:
        return Member(name, dtype, array.shape, (array.tobytes(),).__iter__)
    return Member(name, dtype, array.shape, partial(_array_blocks, array, dtype))


def _array_blocks(array: np.ndarray[Any, Any], dtype: str) -> Iterator[bytes | memoryview]:
    target = little_endian(dtype)
    if not array.size:
        return
    if array.dtype == target and array.flags.c_contiguous:
        yield array.reshape(-1).view(np.uint8).data
        return
    pieces: Any = np.nditer(  # type: ignore[call-overload]
        array,
        flags=["external_loop", "buffered"],
        op_flags=[["readonly"]],
        op_dtypes=[target],
        order="C",
        casting="unsafe",
        buffersize=max(1, BLOCK // 4 // target.itemsize),
    )
    with pieces, np.errstate(all="ignore"):  # an overflow shows as an infinity, which is refused
        for piece in pieces:
            flat = np.ascontiguousarray(piece, dtype=target)
            for start in range(0, flat.size, BLOCK // target.itemsize):
                # A copy, since the buffer of the iterator is used again.
                yield flat[start : start + BLOCK // target.itemsize].tobytes()


def refuse_garbage(values: np.ndarray[Any, Any], dtype: str, where: str) -> None:
    """To an integer dtype only what it can hold: anything else would become another number.

    Raises:
        ValueError: a value is not finite, or past the range of the dtype.
    """
    target = np.dtype(dtype)
    if target.kind not in "iu" or not values.size or np.can_cast(values.dtype, target, "safe"):
        return
    limits = np.iinfo(target)
    # Compared as Python numbers: NaN fails both, and no rounding helps a value in.
    if not (limits.min <= values.min().item() and values.max().item() <= limits.max):
        raise ValueError(f"{where} holds values that {dtype} does not")


def _converted(
    blocks: Iterable[bytes | memoryview], stored: np.dtype[Any], dtype: str, where: str
) -> Iterator[bytes | memoryview]:
    """Blocks of whole elements of one dtype as blocks of another."""
    target = little_endian(dtype)
    for block in blocks:
        if stored == target:
            yield block
        else:
            values = np.frombuffer(block, stored)
            refuse_garbage(values, dtype, where)
            with np.errstate(all="ignore"):
                yield values.astype(target, casting="unsafe").tobytes()


def source_member(source: Source, array: ArrayLayout, name: str | None = None) -> Member:
    """A member of an array that lies in an open update file."""
    big = array.dtype.startswith(">")
    stored = np.dtype(array.dtype) if big else little_endian(array.dtype)

    def read() -> Iterator[bytes | memoryview]:
        step = BLOCK - BLOCK % stored.itemsize
        for at in range(0, array.nbytes, step):
            yield source.read_at(array.offset + at, min(step, array.nbytes - at))

    return stored_member(name, stored, array.shape, read, fortran=array.order == "F")


def stored_member(
    name: str | None,
    stored: np.dtype[Any],
    shape: tuple[int, ...],
    read: Callable[[], Iterator[bytes | memoryview]],
    *,
    fortran: bool = False,
    dtype: str | None = None,
) -> Member:
    """A member of an array in another file.

    Args:
        name: of the parameter, or None.
        stored: its dtype and byte order there.
        shape: elements along each axis.
        read: gives its bytes in blocks of whole elements, whenever it is called.
        fortran: whether the first index runs fastest there.
        dtype: what it is converted to, if that is given.
    """
    target = dtype or stored.name

    def blocks() -> Iterator[bytes | memoryview]:
        found = _converted(read(), stored, target, name or "an array")
        if fortran and len(shape) > 1:
            return _turned(found, little_endian(target), shape, target)
        return found

    return Member(name, target, shape, blocks)


def _turned(
    blocks: Iterable[bytes | memoryview],
    stored: np.dtype[Any],
    shape: tuple[int, ...],
    dtype: str,
) -> Iterator[bytes | memoryview]:
    """Elements in Fortran order to C order."""
    nbytes = int(np.prod(shape, dtype=object)) * stored.itemsize
    if nbytes <= _IN_MEMORY:
        flat = np.frombuffer(b"".join(blocks), stored)
        yield from _array_blocks(flat.reshape(shape, order="F"), dtype)
        return
    with tempfile.TemporaryFile(prefix="bkformat-") as spool:
        for block in blocks:
            spool.write(block)
        spool.flush()
        mapped = np.memmap(spool, stored, "r", shape=shape, order="F")
        yield from _array_blocks(np.asarray(mapped), dtype)
