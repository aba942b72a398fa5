"""A diff as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bkformat.escape import as_utf8, printable
from bkformat.tables import before_after, columns, cut, size

if TYPE_CHECKING:
    from bkformat.change import Change
    from bkformat.diff import ArrayDiff, Diff
    from bkformat.layout import UpdateLayout

__all__ = ["diff_json", "diff_text"]

Names = Sequence[str | None]

_MARKS = {"added": "+", "removed": "-", "dtype": "~", "shape": "~"}


# --- JSON ------------------------------------------------------------------------------------


def diff_json(diff: Diff, path_a: str, path_b: str, names: Names = ()) -> Iterator[str]:
    """The diff as strict JSON, one line for each array.

        {"version": 1,
         "a": {"path", "kind", "num_samples", "num_parameters", "num_elements", "nbytes"},
         "b": the same,
         "equal": bool, "summary": text, "aligned": bool,
         "total": the change of all arrays that were compared, as one,
         "arrays": [{"a_index", "b_index", "name", "status", "a_dtype", "b_dtype", "a_shape",
                     "b_shape", "change"}]}

    "status" is "equal", "changed", "dtype", "shape", "added" or "removed". A "change", null where
    an array has no counterpart of its shape, has the attributes of `Change`: "num_elements",
    "identical", "num_different", "max_abs", "max_rel", "norm", "norm_a", "norm_b", "cosine",
    "nan_a", "nan_b", "inf_a", "inf_b". What is over no element, or past the range of float64, is
    null.
    """
    files = {"a": _file_fields(diff.a, path_a), "b": _file_fields(diff.b, path_b)}
    yield '{"version": 1'
    for key, value in files.items():
        yield f',\n"{key}": {json.dumps(value)}'
    yield f',\n"equal": {json.dumps(diff.equal)}, "summary": {json.dumps(diff.summary())},'
    yield f'\n"aligned": {json.dumps(diff.aligned)}, "total": {_strict(diff.total._asdict())},'
    yield '\n"arrays": ['
    for at, row in enumerate(diff.arrays):
        yield f"{',' if at else ''}\n{_strict(_array_fields(row, names))}"
    yield "\n]}\n"


def _strict(fields: dict[str, Any]) -> str:
    return json.dumps(fields, allow_nan=False)


def _file_fields(layout: UpdateLayout, path: str) -> dict[str, Any]:
    return {
        "path": as_utf8(path),
        "kind": layout.kind,
        "num_samples": layout.num_samples,
        "num_parameters": len(layout.parameters),
        "num_elements": layout.num_elements,
        "nbytes": layout.nbytes,
    }


def _array_fields(row: ArrayDiff, names: Names) -> dict[str, Any]:
    return {
        "a_index": row.a_index,
        "b_index": row.b_index,
        "name": _name(row, names),
        "status": row.status,
        "a_dtype": row.a.dtype if row.a else None,
        "b_dtype": row.b.dtype if row.b else None,
        "a_shape": row.a.shape if row.a else None,
        "b_shape": row.b.shape if row.b else None,
        "change": row.change._asdict() if row.change else None,
    }


def _name(row: ArrayDiff, names: Names) -> str | None:
    """The name of an array of A."""
    return None if row.a_index is None or row.a_index >= len(names) else names[row.a_index]


# --- text ------------------------------------------------------------------------------------


def diff_text(diff: Diff, path_a: str, path_b: str, names: Names = ()) -> Iterator[str]:
    """Tables of at most 80 columns; runs of equal, added and removed arrays are one line each."""
    for line in _lines(diff, path_a, path_b, names):
        yield f"{line}\n"


def _lines(diff: Diff, path_a: str, path_b: str, names: Names) -> Iterator[str]:
    for side, path, layout in (("A", path_a, diff.a), ("B", path_b, diff.b)):
        yield f"{side} {printable(path)}: {layout.kind}, {size(layout.nbytes)}"
    yield f"  num_samples  {before_after(diff.a.num_samples, diff.b.num_samples)}"
    yield f"  parameters   {before_after(_arrays(diff.a), _arrays(diff.b))}"
    yield from textwrap.wrap(diff.structure(), 80, initial_indent="  structure    ")
    if not diff.aligned:
        yield "               too many and too different to be aligned: paired by position"
    yield from _structure_table(diff, names)
    if not diff.total.identical:
        yield from _values_table(diff, names)
        yield from _unfinite_table(diff)
    yield ""
    yield from textwrap.wrap(diff.summary(), 80)


def _arrays(layout: UpdateLayout) -> str:
    return f"{len(layout.parameters):,} ({layout.num_elements:,} elements)"


def _structure_table(diff: Diff, names: Names) -> Iterator[str]:
    """What was added, removed and replaced."""
    rows = []
    for run in _runs(diff.arrays, _same_structure):
        mark = _MARKS.get(run[0].status)
        if mark is not None:
            what = cut(_replaced(run, names), 50)
            rows.append((mark, _span(run, "a_index"), _span(run, "b_index"), what))
    if rows:
        yield from columns(("", "A", "B", "array"), rows, right=(1, 2))


def _same_structure(row: ArrayDiff) -> Hashable:
    """What arrays have in common that are one line of the table of structure; None for none."""
    if row.a is not None and row.b is not None and row.status == "dtype":
        return row.a.dtype, row.b.dtype
    return row.status if row.status in ("added", "removed") else None


def _replaced(run: Sequence[ArrayDiff], names: Names) -> str:
    """Dtypes and shapes, before and after."""
    first, last = (_kind(row) for row in (run[0], run[-1]))
    if len(run) > 1:
        kinds = first if first == last else f"{first} to {last}"
        if run[0].a is not None and run[0].b is not None:  # replaced by one dtype, shapes apart
            kinds = before_after(run[0].a.dtype, run[0].b.dtype)
        return f"{len(run):,} arrays: {kinds}"
    name = _name(run[0], names)
    return first if name is None else f"{name}: {first}"


def _kind(row: ArrayDiff) -> str:
    a, b = row.a or row.b, row.b or row.a
    if a is None or b is None:
        return ""
    return f"{before_after(a.dtype, b.dtype)} {before_after(a.shape, b.shape)}"


def _values_table(diff: Diff, names: Names) -> Iterator[str]:
    """How far each array went that has a counterpart of its shape."""
    rows: list[list[str]] = []
    compared = 0
    for run in _runs(diff.arrays, _same_values):
        row = run[0]
        if row.a is not None and row.change is not None:
            label = _name(row, names) or f"{row.a.dtype} {row.a.shape}"
            label = f"{len(run):,} arrays" if len(run) > 1 else label
            figures = _figures(row.status, row.change)
            rows.append([_span(run, "a_index"), _shift(row), label, *figures])
            compared += len(run)
    if compared > 1:
        rows.append(["all", "", f"{compared:,} arrays", *_figures("dtype", diff.total)])
    heads = ["A", "shift", "array", "differ", "max abs", "max rel", "norm B-A", "cosine"]
    if not any(cells[1] for cells in rows):
        heads[:2] = "index", ""
    room = 76 - sum(max(len(cells[at]) + 2 for cells in (heads, *rows)) for at in _FIGURES)
    for cells in rows:
        cells[2] = cut(cells[2], max(room, 12))
    yield from columns(heads, rows, right=_FIGURES)
    if any(cells[3] == "bits" for cells in rows):
        yield "  bits: the same values in other bits, as of 0.0 and -0.0, or of two NaN"


_FIGURES = (0, 1, 3, 4, 5, 6, 7)
"""Columns of the table of values that hold figures."""


def _shift(row: ArrayDiff) -> str:
    by = (row.b_index or 0) - (row.a_index or 0)
    return f"{by:+,}" if by else ""


def _same_values(row: ArrayDiff) -> Hashable:
    """What arrays have in common that are one line of the table of values; None for none."""
    same = row.change is not None and not row.change.num_different
    return row.status if same and row.status in ("equal", "dtype") else None


def _figures(status: str, change: Change) -> Sequence[str]:
    if change.identical or not change.num_different:
        word = "equal" if change.identical else "same" if status == "dtype" else "bits"
        return word, "", "", "", ""
    figures = [change.max_abs, change.max_rel, change.norm]
    told = ["-" if figure is None else f"{figure:.3g}" for figure in figures]
    cosine = "-" if change.cosine is None else f"{change.cosine:.5f}"
    return _share(change.num_different, change.num_elements), *told, cosine


def _share(count: int, total: int) -> str:
    """A percentage that is 0% and 100% only where that is exact."""
    if count in (0, total):
        return "100%" if count else "0%"
    return f"{min(max(count / total, 0.001), 0.999):.1%}"


def _unfinite_table(diff: Diff) -> Iterator[str]:
    """Where there are NaN and infinities, and how many."""
    rows = []
    for row in diff.arrays:
        if row.change is not None and not row.change.finite:
            counts = row.change[-4:]
            index = before_after(row.a_index, row.b_index)
            rows.append((index, *(f"{count:,}" for count in counts)))
    if rows:
        heads = ("index", "NaN in A", "NaN in B", "inf in A", "inf in B")
        yield from columns(heads, rows, right=range(5))


def _runs(
    rows: Sequence[ArrayDiff], shared: Callable[[ArrayDiff], Hashable]
) -> Iterator[list[ArrayDiff]]:
    """Neighbours that share something, together; each of the others by itself."""

    def key(item: tuple[int, ArrayDiff]) -> Hashable:
        at, row = item
        return at if shared(row) is None else (shared(row),)

    for _, run in groupby(enumerate(rows), key):
        yield [row for _, row in run]


def _span(run: Sequence[ArrayDiff], attribute: str) -> str:
    """The indices of neighbours, as a slice."""
    first = getattr(run[0], attribute)
    if first is None:
        return ""
    return str(first) if len(run) == 1 else f"{first}:{first + len(run)}"
