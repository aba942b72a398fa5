"""Rewrites what can be put right without guessing, as a canonical file, and says what it did.

put right    protocol 2; a numpy integer as count; a tuple in place of the list; numpy scalars
             in it; big-endian arrays; arrays that are one object; any valid form
refused      whatever would be a guess: a float as count, NaN, a wrong shape, everything else
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bkformat import rules
from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES, refusal
from bkformat.errors import InvalidUpdateError
from bkformat.findings import Report, finding
from bkformat.layout import MAX_NUM_SAMPLES
from bkformat.legacy import LegacyUnpickler, decoded_blocks
from bkformat.limits import limit_for, refuse_same_file, without_offsets
from bkformat.members import Content, Member, source_member, stored_member
from bkformat.rules import ERROR
from bkformat.source import FileSource, open_file
from bkformat.symbols import NumpyScalar, ObjectArray, PyTuple
from bkformat.validate import examine
from bkformat.writers import WRITERS
from bkformat.writing import write_checked

__all__ = ["RepairReport", "repair_file"]

_MENDED = {
    rules.NUM_SAMPLES_NUMPY_SCALAR.code: "num_samples: a numpy integer made a plain int",
    rules.PARAMETERS_TUPLE.code: "parameters: a tuple made a list",
    rules.NUMPY_SCALAR.code: "numpy scalars made arrays without dimensions",
    rules.BIG_ENDIAN.code: "big-endian arrays made little-endian",
    rules.SHARED_ARRAY.code: "arrays that were one object written each for itself",
}


@dataclass(frozen=True)
class RepairReport:
    """What repairing a file did.

    Attributes:
        changes: one line for each kind of change; empty where the file was canonical already.
        before: the report on the structure of the input.
        after: the report on the output, which is valid.
    """

    changes: tuple[str, ...]
    before: Report
    after: Report

    def __str__(self) -> str:
        lines = self.changes or ("nothing: it was canonical already",)
        return "\n".join(f"  {line}" for line in lines)


def repair_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_size: int | None = None,
    fsync: bool = True,
) -> RepairReport:
    """Rewrite a file in canonical form; values stay the same bit for bit.

    Args:
        path: the input, which is never touched.
        out: the output, which is replaced in one step.
        max_size: bytes of the output; None for 8 times the input, and at least 256 MiB.
        fsync: wait until the output is on the disk.

    Raises:
        InvalidUpdateError: something can't be put right without guessing; nothing was written.
        OSError: the input can't be read, or the output can't be written or would be too large.
        ValueError: input and output are the same file.
    """
    refuse_same_file(path, out)
    with open_file(path) as source:
        before, root, encoded = _read(source)
        errors = [found for found in before.findings if found.severity == ERROR]
        if root is None or any(found.code not in _MENDED for found in errors):
            raise InvalidUpdateError(before)
        content = _Mender(source, before, encoded).content(root)
        limit = limit_for(source.nbytes) if max_size is None else max_size
        with without_offsets():
            after = write_checked(out, content, fsync=fsync, max_size=limit)
        source.check_unchanged()
    return RepairReport(tuple(_changes(before)), before, after)


def _read(source: FileSource) -> tuple[Report, ObjectArray | None, dict[int, int]]:
    """The report, what the pickle builds, and the payloads that are texts."""
    report, root, _ = examine(source)
    if [found.code for found in report.findings] != [rules.PROTOCOL_2.code]:
        return report, root, {}
    report, root, machine = examine(source, LegacyUnpickler)
    return report, root, machine.encoded if isinstance(machine, LegacyUnpickler) else {}


class _Mender:
    """Makes members of what one pickle builds."""

    def __init__(self, source: FileSource, report: Report, encoded: dict[int, int]) -> None:
        self._source = source
        self._report = report
        self._encoded = encoded

    def content(self, root: ObjectArray) -> Content:
        values = [value for value, _ in root.pairs]
        if self._report.kind == "aggregate" and all(type(v) is ArrayLayout for v in values):
            return Content(None, [self._member(value) for value in values])
        count, items = values
        inner = items.values if isinstance(items, PyTuple) else [v for v, _ in items.pairs]
        return Content(self._count(count), [self._member(value) for value in inner])

    def _count(self, value: int | NumpyScalar) -> int:
        if isinstance(value, int):
            return value
        dtype = self._dtype(value.dtype)
        if dtype.kind not in "iu" or value.nbytes != dtype.itemsize:
            raise InvalidUpdateError(self._report)
        count = int(np.frombuffer(b"".join(self._blocks(value)), dtype)[0])
        if not 1 <= count <= MAX_NUM_SAMPLES:
            message = f"{count:,} samples"
            found = finding(rules.NUM_SAMPLES_RANGE, message, where="num_samples")
            raise InvalidUpdateError(replace(self._report, findings=(found,)))
        return count

    def _dtype(self, name: str) -> np.dtype[Any]:
        """The dtype of that name, big-endian where it begins with ">", if an update may hold it."""
        try:
            dtype = np.dtype(name)
        except TypeError as exc:  # a long double of another machine
            raise InvalidUpdateError(self._report) from exc
        if dtype.name not in ITEMSIZES or refusal(dtype.name) is not None:
            raise InvalidUpdateError(self._report)
        return dtype

    def _member(self, value: ArrayLayout | NumpyScalar) -> Member:
        dtype = self._dtype(value.dtype)
        if isinstance(value, NumpyScalar):
            if value.nbytes != dtype.itemsize:
                raise InvalidUpdateError(self._report)
            return stored_member(None, dtype, (), partial(self._blocks, value))
        if value.offset not in self._encoded:
            return source_member(self._source, value)
        read, fortran = partial(self._blocks, value), value.order == "F"
        return stored_member(None, dtype, value.shape, read, fortran=fortran)

    def _blocks(self, value: ArrayLayout | NumpyScalar) -> Iterator[bytes]:
        """The bytes of an array or a scalar, in blocks of whole elements."""
        length = self._encoded.get(value.offset)
        if length is None:
            yield self._source.read_at(value.offset, value.nbytes)
            return
        left = b""
        for block in decoded_blocks(self._source, value.offset, length):
            whole = (len(left) + len(block)) // _WIDEST * _WIDEST
            data = left + block
            yield data[:whole]
            left = data[whole:]
        yield left


_WIDEST = 16
"""Bytes of the widest element; a multiple of every other."""


def _changes(before: Report) -> Iterator[str]:
    layout = before.layout
    if layout is not None and layout.protocol == 2:
        yield "pickle protocol 2, of numpy 1.16 or older, rewritten in canonical form"
    elif layout is not None and layout.writer != "canonical":
        by = f" of {WRITERS[layout.writer]}" if layout.writer else ""
        yield f"the form{by} rewritten in canonical form"
    counts = Counter(found.code for found in before.findings)
    for code, what in _MENDED.items():
        if counts[code]:
            yield f"{what} ({code})"
