"""Updates to an aggregate: the mean weighted by num_samples, in blocks, however large they are.

For each array, element by element, with n_i the num_samples of update i:

    sum(n_i * x_i) / sum(n_i)        in float64, rounded once to the array's dtype

Integers and bools go to the nearest, ties to the even one; integers past 2**53 lose their last
digits, since float64 has no more. A guess: the published client does not say how the service does
it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bkformat.arrays import ArrayLayout
from bkformat.errors import InvalidUpdateError
from bkformat.layout import MAX_NUM_SAMPLES, UpdateLayout
from bkformat.members import Member, little_endian, source_member
from bkformat.source import FileSource, open_file
from bkformat.validate import check_file
from bkformat.writing import write_canonical

__all__ = ["Counted", "aggregate"]

_ELEMENTS = 1 << 17
"""Elements that are averaged at a time: 1 MiB of float64."""

_Float64 = np.ndarray[Any, np.dtype[np.float64]]


class Counted(NamedTuple):
    """A valid update on the disk."""

    path: Path
    layout: UpdateLayout
    num_samples: int


def aggregate(out: Path, updates: Sequence[Counted], check: Callable[[], None]) -> int:
    """Write the aggregate of updates that have the same dtypes and shapes.

    Args:
        out: where it goes, in canonical form, with the sum of num_samples.
        updates: at least one; their layouts were judged.
        check: called for every block; an exception of it ends the work and leaves nothing.

    Returns:
        num_samples of the aggregate.

    Raises:
        ValueError: more than 2**53 samples.
        InvalidUpdateError: a mean is not finite.
        OSError: a file can't be read or written.
    """
    total = sum(update.num_samples for update in updates)
    if total > MAX_NUM_SAMPLES:
        raise ValueError(f"{total:,} samples in all are more than 2**53")
    counts = [update.num_samples for update in updates]
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_file(update.path)) for update in updates]
        members = [
            _averaged(sources, arrays, counts, check)
            for arrays in zip(*(update.layout.parameters for update in updates), strict=True)
        ]
        write_canonical(out, total, members, fsync=False).close()
    report = check_file(out, kind="aggregate", values=False)  # they were looked at while written
    if not report.valid:
        out.unlink()
        raise InvalidUpdateError(report)
    return total


def _averaged(
    sources: Sequence[FileSource],
    arrays: Sequence[ArrayLayout],
    counts: Sequence[int],
    check: Callable[[], None],
) -> Member:
    """The mean of one array of all updates."""
    stored = [source_member(*pair) for pair in zip(sources, arrays, strict=True)]
    dtype, shape = stored[0].dtype, stored[0].shape
    return Member(None, dtype, shape, partial(_means, stored, counts, dtype, check))


def _means(
    stored: Sequence[Member], counts: Sequence[int], dtype: str, check: Callable[[], None]
) -> Iterator[bytes]:
    target = little_endian(dtype)
    step = _ELEMENTS * target.itemsize
    for pieces in zip(*(_pieces(member.blocks(), step) for member in stored), strict=True):
        check()
        values = [np.frombuffer(piece, target) for piece in pieces]
        with np.errstate(all="ignore"):
            yield _rounded(_mean(values, counts), target).tobytes()


def _mean(values: Sequence[np.ndarray[Any, Any]], counts: Sequence[int]) -> _Float64:
    total = sum(counts)
    mean = _weighted_sum(values, counts) / total
    if np.isfinite(mean).all():
        return mean
    # The sum left float64's range, which the mean itself can't.
    return _weighted_sum(values, [count / total for count in counts])


def _weighted_sum(values: Sequence[np.ndarray[Any, Any]], weights: Sequence[float]) -> _Float64:
    found = np.zeros(len(values[0]), np.float64)
    for value, weight in zip(values, weights, strict=True):
        found += value.astype(np.float64) * weight
    return found


def _rounded(mean: _Float64, target: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if target.kind == "f":
        return mean.astype(target)
    nearest = np.rint(mean)
    if target.kind == "b":
        return nearest.astype(target)
    limits = np.iinfo(target)
    found = nearest.astype(target)
    # float64 has no 2**63 - 1: what was rounded up to 2**63 would wrap around.
    found[nearest >= float(limits.max)] = limits.max
    found[nearest <= float(limits.min)] = limits.min
    return found


def _pieces(
    blocks: Iterator[bytes | memoryview], step: int
) -> Iterator[bytes | bytearray | memoryview]:
    """The same bytes in pieces of `step`, the last one shorter: files differ in their blocks."""
    held = bytearray()
    for block in blocks:
        view = memoryview(block)
        if held:
            missing = step - len(held)
            held += view[:missing]
            view = view[missing:]
            if len(held) < step:
                continue
            yield held
            held = bytearray()
        whole = len(view) - len(view) % step
        for start in range(0, whole, step):
            yield view[start : start + step]
        held = bytearray(view[whole:])
    if held:
        yield held
