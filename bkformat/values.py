"""Stage 4: the values of each array -> findings: NaN, infinities, magnitudes past a bound.

Payloads are read once, in aligned blocks of 4 MiB, and each block is tested whole:

    float32      dot(x, x) is finite only if every x is (it may overflow: then x is looked at)
    float64      so is the sum
    float16      the largest bit pattern, signed and unsigned, lies below those of infinity and NaN

Only a block that fails is looked at one by one. numpy is first imported here.
"""

from __future__ import annotations

import errno
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bkformat import rules
from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.errors import UpdateChangedError
from bkformat.findings import Finding, finding, quoted
from bkformat.hashing import HASH_BLOCK, Hasher, aligned_block
from bkformat.source import Source

__all__ = [
    "BLOCK",
    "FINITE",
    "ArrayTally",
    "ValueRules",
    "all_finite",
    "hash_and_judge",
    "judge_values",
    "new_block",
    "read_blocks",
    "within",
]

BLOCK = 1 << 22
"""Bytes read at a time: past this, reading gets no faster."""

_SMALL = 1 << 16
"""Bytes of an array that is read in one go."""

_SHORT = 8192
"""Elements up to which BLAS multiplies in the calling thread."""

_SEGMENT = 8 * BLOCK
"""Bytes that one thread takes at a time."""

_PARTS = {"complex64": "float32", "complex128": "float64"}
Progress = Callable[[int], None]
_FLOATS = frozenset({"float16", "float32", "float64", *_PARTS})
_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(_PARTS.get(name, name)).newbyteorder("<") for name in ITEMSIZES if name != "bool"
}
_WHAT = {rules.NAN.code: "are NaN", rules.INFINITY.code: "are infinite"}


@dataclass(frozen=True)
class ValueRules:
    """What is asked of the values.

    Attributes:
        finite: NaN and infinities are refused.
        max_abs: the largest magnitude allowed, or None.
    """

    finite: bool = True
    max_abs: float | None = None

    def apply_to(self, array: ArrayLayout) -> bool:
        """Whether any value of this array could break them."""
        if not array.nbytes or array.dtype not in _DTYPES:
            return False
        return self.max_abs is not None or (self.finite and array.dtype in _FLOATS)


FINITE = ValueRules()


class ArrayTally:
    """What was found in one array so far; blocks come in any order and from any thread."""

    __slots__ = (
        "_bounds",
        "_counts",
        "_dtype",
        "_finite",
        "_first",
        "_index",
        "_lock",
        "_max_abs",
        "array",
    )

    def __init__(self, index: int, array: ArrayLayout, wanted: ValueRules) -> None:
        self.array = array
        self._index = index
        self._finite = wanted.finite and array.dtype in _FLOATS
        self._max_abs = wanted.max_abs
        self._dtype = _DTYPES[array.dtype]
        self._bounds = None if wanted.max_abs is None else within(wanted.max_abs, self._dtype)
        self._counts: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, block: np.ndarray[Any, Any], start: int) -> None:
        """Judge the bytes `block`, which begin `start` bytes into the array."""
        values = block.view(self._dtype)
        if self._finite and not all_finite(values):
            self._note(rules.NAN.code, np.isnan(values), start)
            self._note(rules.INFINITY.code, np.isinf(values), start)
        # Compared on both sides, since abs() of the smallest integer is negative; NaN passes.
        if self._bounds is not None:
            least, greatest = self._bounds
            self._note(rules.VALUE_BOUND.code, (values < least) | (values > greatest), start)

    def _note(self, code: str, hits: np.ndarray[Any, Any], start: int) -> None:
        count = int(np.count_nonzero(hits))
        if count:
            position = start // self._dtype.itemsize + int(hits.argmax())
            with self._lock:
                self._counts[code] = self._counts.get(code, 0) + count
                self._first[code] = min(self._first.get(code, position), position)

    def findings(self) -> Iterator[Finding]:
        for code, count in sorted(self._counts.items()):
            array, first = self.array, self._first[code]
            parts = 2 if array.dtype in _PARTS else 1
            what = _WHAT.get(code) or f"are past {self._max_abs:g} in magnitude"
            at = quoted(_unravel(first // parts, array))
            message = f"{count:,} of {array.size * parts:,} values {what}, the first at {at}"
            offset = array.offset + first * self._dtype.itemsize
            where = f"parameters[{self._index}]"
            yield finding(rules.RULES[code], message, offset=offset, where=where)


def within(bound: float, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest value of `dtype` that are not past `bound` in magnitude.

    A bound of another type would be rounded when compared, or widen the values to itself.
    """
    if dtype.kind in "iu":
        limits, whole = np.iinfo(dtype), math.floor(bound)
        return dtype.type(max(-whole, limits.min)), dtype.type(min(whole, limits.max))
    with np.errstate(over="ignore"):
        greatest = dtype.type(bound)
    if float(greatest) > bound:
        greatest = np.nextafter(greatest, dtype.type(0))
    return -greatest, greatest


def all_finite(values: np.ndarray[Any, Any]) -> bool:
    """Whether no value is NaN or infinite; called with floating-point warnings off."""
    if values.dtype.itemsize == 2:
        signed, unsigned = values.view(np.int16), values.view(np.uint16)
        return bool(signed.max() < 0x7C00 and unsigned.max() < 0xFC00)
    # Neither sum can come out finite once it met a NaN or an infinity. No dot for long float64:
    # BLAS would hand it to threads of its own, which stall where the cores are busy.
    alone = values.dtype.itemsize == 4 or len(values) <= _SHORT
    total = values.dot(values) if alone else np.einsum("i->", values)
    return math.isfinite(total) or bool(np.isfinite(values).all())


def _unravel(position: int, array: ArrayLayout) -> list[int]:
    """The index of the stored element at `position`."""
    index = []
    for dim in array.shape if array.order == "F" else reversed(array.shape):
        position, at = divmod(position, dim)
        index.append(at)
    return index if array.order == "F" else index[::-1]


def new_block(nbytes: int) -> np.ndarray[Any, Any]:
    """A buffer for `nbytes`, at most BLOCK, that begins at a multiple of 64."""
    return aligned_block(min(nbytes, BLOCK))


def judge_values(
    source: Source,
    arrays: Sequence[ArrayLayout],
    wanted: ValueRules,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Finding]:
    """Look at every value of every array.

    Args:
        source: the file.
        arrays: as the layout has them; one that stands there twice is looked at once.
        wanted: what is asked of the values.
        jobs: threads that read and judge; both let go of the GIL.
        progress: called with the bytes read since, from any thread; not for small arrays.

    Returns:
        BK401, BK402 and BK506, in the order of the arrays.

    Raises:
        UpdateChangedError: the file was cut short meanwhile.
    """
    tallies = _tallies(arrays, wanted)
    small = [tally for tally in tallies if tally.array.nbytes <= _SMALL]
    _judge_small(source, small)
    if len(small) < len(tallies):
        _judge_large(source, [t for t in tallies if t.array.nbytes > _SMALL], jobs, progress)
    return [found for tally in tallies for found in tally.findings()]


def _judge_small(source: Source, tallies: Sequence[ArrayTally]) -> None:
    """One read an array: for thousands of small ones, setting up is what costs."""
    with np.errstate(all="ignore"):
        for tally in tallies:
            offset, nbytes = tally.array.offset, tally.array.nbytes
            tally.add(np.frombuffer(source.read_at(offset, nbytes), np.uint8), 0)


def _judge_large(
    source: Source, tallies: Sequence[ArrayTally], jobs: int, progress: Progress | None
) -> None:
    segments = deque(
        (tally, start, min(start + _SEGMENT, tally.array.nbytes))
        for tally in tallies
        for start in range(0, tally.array.nbytes, _SEGMENT)
    )
    largest = max(stop - start for _, start, stop in segments)
    if jobs == 1 or sum(tally.array.nbytes for tally in tallies) <= _SEGMENT:
        _judge_segments(source, segments, largest, progress)
        return
    with ThreadPoolExecutor(jobs) as pool:
        parts = [
            pool.submit(_judge_segments, source, segments, largest, progress) for _ in range(jobs)
        ]
        for part in parts:
            part.result()


def _judge_segments(
    source: Source,
    segments: deque[tuple[ArrayTally, int, int]],
    largest: int,
    progress: Progress | None,
) -> None:
    """Take segments, none of more than `largest` bytes, until none is left."""
    block = new_block(largest)
    with np.errstate(all="ignore"):
        while segments:
            try:
                tally, start, stop = segments.popleft()
            except IndexError:  # another thread took the last one
                return
            for at, part in read_blocks(source, tally.array.offset, start, stop, block):
                tally.add(part, at)
                if progress is not None:
                    progress(len(part))


def read_blocks(
    source: Source, offset: int, start: int, stop: int, block: np.ndarray[Any, Any]
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Bytes [start, stop) from `offset` on, in blocks that are overwritten one after another."""
    for at in range(start, stop, len(block) or 1):
        part = block[: min(len(block), stop - at)]
        source.read_into(offset + at, part.data)
        yield at, part


def _tallies(arrays: Sequence[ArrayLayout], wanted: ValueRules) -> list[ArrayTally]:
    seen: set[int] = set()
    tallies = []
    for index, array in enumerate(arrays):
        # Arrays of one byte may share it and are still two arrays.
        if array.nbytes > 1 and array.offset in seen:
            continue
        seen.add(array.offset)
        if wanted.apply_to(array):
            tallies.append(ArrayTally(index, array, wanted))
    return tallies


def hash_and_judge(
    source: Source,
    structure: Iterable[tuple[int, bytes]],
    arrays: Sequence[ArrayLayout],
    wanted: ValueRules | None,
    *,
    progress: Progress | None = None,
    hashed: bool = True,
) -> tuple[str, list[Finding]]:
    """Hash the whole file, and judge values from the very buffers that are hashed.

    Args:
        source: the file.
        structure: the bytes that were parsed, as (offset, bytes) in the order of the file; they
            are compared with what stands there now.
        arrays: as the layout has them.
        wanted: what is asked of the values; None if they are not to be looked at.
        progress: called with the bytes read since.
        hashed: False does everything but hash.

    Returns:
        The SHA-256 in hexadecimal, and the findings of `judge_values`.

    Raises:
        UpdateChangedError: the file is no longer the one that was parsed.
    """
    tallies = _tallies(arrays, wanted) if wanted else []
    at_offset: dict[int, list[ArrayTally]] = {}
    for tally in tallies:
        at_offset.setdefault(tally.array.offset, []).append(tally)
    position = 0
    with Hasher(source.nbytes, wanted=hashed) as hasher, np.errstate(all="ignore"):
        for offset, piece in (*structure, (source.nbytes, b"")):
            for at, part in _hashed_blocks(source, position, offset - position, hasher):
                for tally in at_offset.get(position, ()):
                    tally.add(part, at)
                if progress is not None:
                    progress(len(part))
            current = source.read_at(offset, len(piece))
            if current != piece:
                raise UpdateChangedError(errno.EIO, "the file was changed while it was judged")
            hasher.add(current)
            position = offset + len(piece)
        return hasher.hexdigest(), [found for tally in tallies for found in tally.findings()]


def _hashed_blocks(
    source: Source, offset: int, nbytes: int, hasher: Hasher
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Bytes from `offset` on in blocks, the very ones that are hashed."""
    if nbytes <= _SMALL:
        if nbytes:
            data = source.read_at(offset, nbytes)
            hasher.add(data)
            yield 0, np.frombuffer(data, np.uint8)
        return
    for at in range(0, nbytes, HASH_BLOCK):
        block = hasher.free_block()
        part = block[: min(HASH_BLOCK, nbytes - at)]
        source.read_into(offset + at, part.data)
        hasher.add_block(block, len(part))
        yield at, part
