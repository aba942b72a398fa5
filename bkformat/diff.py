"""Two updates or aggregates side by side: the structure first, then the values of each array."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Literal, NamedTuple, NoReturn

from bkformat.alignment import Place, align
from bkformat.arrays import ArrayLayout
from bkformat.change import Change, Tally
from bkformat.errors import InvalidUpdateError, UpdateChangedError
from bkformat.layout import UpdateLayout
from bkformat.pairs import Stored
from bkformat.source import Source, open_file
from bkformat.tables import before_after
from bkformat.validate import judge

__all__ = ["ArrayDiff", "Diff", "Status", "diff_files", "diff_sources", "sources_equal"]

Status = Literal["equal", "changed", "dtype", "shape", "added", "removed"]

_WORDS = ((100.0, "exploded"), (1.0, "large change"), (0.01, "changed"))
"""Norms of the change, in norms of A, from which on a word is used; below, the change is small."""

_STRUCTURE: dict[Status, str] = {
    "added": "added",
    "removed": "removed",
    "dtype": "of another dtype",
    "shape": "of another shape",
}


class ArrayDiff(NamedTuple):
    """One array of either file and its counterpart.

    Attributes:
        a_index, b_index: its index in each file; None where it stands in the other alone.
        a, b: its layouts.
        change: the values compared; None where there is no counterpart of the same shape.
    """

    a_index: int | None
    b_index: int | None
    a: ArrayLayout | None
    b: ArrayLayout | None
    change: Change | None

    @property
    def status(self) -> Status:
        """How the two differ: "changed" is in values alone, "dtype" perhaps in values too."""
        if self.a is None or self.b is None:
            return "added" if self.a is None else "removed"
        if self.a.shape != self.b.shape:
            return "shape"
        if self.a.dtype != self.b.dtype:
            return "dtype"
        return "equal" if self.equal else "changed"

    @property
    def equal(self) -> bool:
        """Whether dtype, shape and every bit of every element are the same."""
        return self.change is not None and self.change.identical


@dataclass(frozen=True)
class Diff:
    """What `diff_files` found.

    Attributes:
        a, b: what each file says.
        arrays: a row for each array of either file, in order.
        total: all arrays whose values were compared, as one.
        aligned: False where the lists of arrays were too long and too different to be aligned, so
            that some were paired by position.
    """

    a: UpdateLayout = field(repr=False)
    b: UpdateLayout = field(repr=False)
    arrays: tuple[ArrayDiff, ...] = field(repr=False)
    total: Change
    aligned: bool = True

    @property
    def equal(self) -> bool:
        """Whether both files say the same: num_samples, dtypes, shapes, the bits of every element.

        In which byte form, memory order and place a file holds an array does not matter. 0.0 and
        -0.0 differ in bits, so they are not equal; neither are an update and an aggregate without
        num_samples.
        """
        return self.a.num_samples == self.b.num_samples and all(row.equal for row in self.arrays)

    def __bool__(self) -> NoReturn:
        """Refused: a diff of different files would be true, as any object is."""
        raise TypeError("a diff is neither true nor false; ask for diff.equal")

    def __str__(self) -> str:
        return self.summary()

    def structure(self) -> str:
        """What became of the list of arrays, in a few words: "the same", "1 added, 2 removed"."""
        counts = Counter(row.status for row in self.arrays)
        told = [
            f"{counts[status]:,} {words}" for status, words in _STRUCTURE.items() if counts[status]
        ]
        return ", ".join(told) or "the same"

    def summary(self) -> str:
        """One line that tells an unchanged update and an exploded one at a glance.

        The change is "small" where its norm is below 0.01 times that of A, "large" from 1 time on,
        and from 100 times on A "exploded".
        """
        if self.equal:
            return f"unchanged: the same num_samples and {_arrays(self.arrays)}, bit for bit"
        compared = [row for row in self.arrays if row.change is not None]
        structure = self.structure()
        told = [] if structure == "the same" else [f"different structure: {structure}"]
        if not compared:
            told.append("no array to compare")
        elif self.total.identical:
            told.append(f"unchanged: {_arrays(compared)}, bit for bit")
        elif self.total.bits_alone:
            told.append(f"the same values in other bits: {_arrays(compared)}")
        else:
            told.append(_in_words(self.total, compared))
        if self.a.num_samples != self.b.num_samples:
            told.append(f"num_samples {before_after(self.a.num_samples, self.b.num_samples)}")
        return "; ".join(told)


def _arrays(rows: Sequence[ArrayDiff]) -> str:
    return f"{len(rows):,} array{'s' if len(rows) != 1 else ''}"


def _in_words(total: Change, compared: Sequence[ArrayDiff]) -> str:
    """How large the change is, for arrays of which some differ in value."""
    told = []
    if not total.finite:
        a, b = (_unfinite(*x) for x in ((total.nan_a, total.inf_a), (total.nan_b, total.inf_b)))
        told.append(f"not finite: A has {a}, B {b}" if a != b else f"not finite: A and B have {a}")
    told.append(_size_in_words(total, compared))
    told.append(f"{total.num_different:,} of {total.num_elements:,} elements differ")
    return "; ".join(told)


def _size_in_words(total: Change, compared: Sequence[ArrayDiff]) -> str:
    if total.norm is None:
        nowhere = total.norm_a is None and not total.finite
        far = "exploded: the change is past the range of float64"
        return "no element is finite in both" if nowhere else far
    if not total.norm:
        return "the finite values are the same"
    if not total.norm_a:
        return f"changed: A is all zeros, the norm of B is {total.norm:.3g}"
    ratio = total.norm / total.norm_a
    word = next((word for least, word in _WORDS if ratio >= least), "small change")
    cosine = "" if total.cosine is None else f", cosine {total.cosine:.6g}"
    return f"{word}: {ratio:.3g} times the norm of A{_most(compared, ratio)}{cosine}"


def _most(compared: Sequence[ArrayDiff], overall: float) -> str:
    """Where an array changed most, measured by itself, if by more than all together."""
    ratios = [
        (row.change.norm / row.change.norm_a, row.a_index)
        for row in compared
        if row.change is not None and row.change.norm and row.change.norm_a
    ]
    ratio, index = max(ratios, key=itemgetter(0), default=(0.0, None))
    told = f"{ratio:.3g}"
    more = ratio > overall and told != f"{overall:.3g}"
    return f" (parameters[{index}]: {told} times its own)" if more else ""


def _unfinite(nan: int, inf: int) -> str:
    """Counts as "none", "3 NaN", "3 NaN and 1 infinite value"."""
    told = [f"{nan:,} NaN"] if nan else []
    told += [f"{inf:,} infinite value{'s' if inf != 1 else ''}"] if inf else []
    return " and ".join(told) or "none"


def diff_files(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Diff:
    """Compare two updates or aggregates, structure and every value; memory stays constant.

    The lists of arrays are aligned by dtype and shape, so that an array more or less shifts the
    others and no more. Arrays of the same shape are then compared by value, whatever their dtypes
    and memory orders; NaN and infinities are counted. An update may be compared with an aggregate.

    Args:
        a: path of a regular file, the reference; links are followed.
        b: path of another, or the same.

    Raises:
        InvalidUpdateError: one of them is not to be read as an update or aggregate, values apart;
            `.report` says why, `.path` which it is.
        OSError: a file can't be opened or read, or is no regular file.
        UpdateChangedError: a file was changed meanwhile (an `OSError` too).

    >>> folder = "fixtures/valid"
    >>> diff_files(f"{folder}/form-e.npy", f"{folder}/canonical.npy").equal
    True
    >>> diff = diff_files(f"{folder}/fortran-form-e.npy", f"{folder}/fortran-canonical.npy")
    >>> diff.summary()
    'unchanged: the same num_samples and 1 array, bit for bit'
    """
    with open_file(a) as source_a, open_file(b) as source_b:
        return diff_sources(source_a, source_b, os.fsdecode(a), os.fsdecode(b))


def diff_sources(a: Source, b: Source, path_a: str, path_b: str) -> Diff:
    """`diff_files` on files that are open; the paths are for an error to name."""
    with _unchanged((a, path_a), (b, path_b)):
        layout_a, layout_b = _layout(a, path_a), _layout(b, path_b)
        alignment = align(layout_a.parameters, layout_b.parameters)
        total = Tally()
        rows = tuple(_rows(a, layout_a, b, layout_b, alignment.places, total))
    return Diff(layout_a, layout_b, rows, total.change(), alignment.exact)


def sources_equal(a: Source, b: Source, path_a: str, path_b: str) -> bool:
    """`Diff.equal` alone: nothing is read past the first array that differs."""
    with _unchanged((a, path_a), (b, path_b)):
        layout_a, layout_b = _layout(a, path_a), _layout(b, path_b)
        kinds_a, kinds_b = (
            [(array.dtype, array.shape) for array in layout.parameters]
            for layout in (layout_a, layout_b)
        )
        if layout_a.num_samples != layout_b.num_samples or kinds_a != kinds_b:
            return False
        places = [(index, index) for index in range(len(kinds_a))]
        return all(row.equal for row in _rows(a, layout_a, b, layout_b, places, Tally()))


@contextlib.contextmanager
def _unchanged(*files: tuple[Source, str]) -> Iterator[None]:
    """Raise `UpdateChangedError`, which names the file, where one changed meanwhile."""
    try:
        yield
    except UpdateChangedError:
        for source, path in files:
            _check_unchanged(source, path)
        raise
    for source, path in files:
        _check_unchanged(source, path)


def _check_unchanged(source: Source, path: str) -> None:
    try:
        source.check_unchanged()
    except UpdateChangedError as exc:
        exc.filename = path
        raise


def _layout(source: Source, path: str) -> UpdateLayout:
    """What a file says, if it is an update or aggregate of any dtypes that a schema may allow."""
    report = judge(source, None, None, values=False).report
    if not report.valid:
        from bkformat.schema import any_dtype  # pydantic, for the sake of complex arrays

        report = judge(source, any_dtype(), None, values=False).report
    if not report.valid or report.layout is None:
        raise InvalidUpdateError(report, path)
    return report.layout


def _rows(
    source_a: Source,
    a: UpdateLayout,
    source_b: Source,
    b: UpdateLayout,
    places: Iterable[Place],
    total: Tally,
) -> Iterator[ArrayDiff]:
    for i, j in places:
        array_a = None if i is None else a.parameters[i]
        array_b = None if j is None else b.parameters[j]
        change = None
        if array_a is not None and array_b is not None and array_a.shape == array_b.shape:
            tally = Tally()
            tally.compare(Stored(source_a, array_a), Stored(source_b, array_b))
            total.merge(tally)
            change = tally.change()
        yield ArrayDiff(i, j, array_a, array_b, change)
