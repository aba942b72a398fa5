"""What a file holds, as a compact table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bkformat.arrays import ArrayLayout
from bkformat.escape import printable
from bkformat.findings import finding_lines
from bkformat.layout import UpdateLayout
from bkformat.render import Entry, Tally, report_fields
from bkformat.tables import columns, cut, number, size
from bkformat.writers import WRITERS

if TYPE_CHECKING:
    from bkformat.stats import ArrayStats

__all__ = ["Inspected", "inspect_json", "inspect_text"]


class Inspected(NamedTuple):
    """An entry, with the names that a schema gives and statistics where they were asked for."""

    entry: Entry
    names: Sequence[str | None] = ()
    stats: Sequence[ArrayStats | None] = ()


def inspect_json(items: Iterable[Inspected], tally: Tally) -> Iterator[str]:
    """The JSON of the contract, one line for each file."""
    yield '{"version": 1, "files": ['
    for index, item in enumerate(_counted(items, tally)):
        yield f"{',' if index else ''}\n{json.dumps(_fields(item))}"
    yield "\n]}\n"


def inspect_text(items: Iterable[Inspected], tally: Tally) -> Iterator[str]:
    """A table of at most 80 columns for each file; files that could not be judged are left out."""
    first = True
    for item in _counted(items, tally):
        if isinstance(item.entry.outcome, OSError):
            continue
        yield "" if first else "\n"
        yield "".join(f"{line}\n" for line in _lines(item))
        first = False


def _counted(items: Iterable[Inspected], tally: Tally) -> Iterator[Inspected]:
    for item in items:
        list(tally.count([item.entry]))
        yield item


# --- JSON ------------------------------------------------------------------------------------


def _fields(item: Inspected) -> dict[str, Any]:
    outcome = item.entry.outcome
    layout = None if isinstance(outcome, OSError) else outcome.layout
    common = report_fields(item.entry)
    fields = {key: common[key] for key in ("path", "valid", "error", "kind")}
    fields["num_samples"] = common["num_samples"]
    fields["num_parameters"] = common["num_parameters"]
    fields["num_elements"] = layout.num_elements if layout else None
    fields["nbytes"] = common["nbytes"]
    fields["protocol"] = layout.protocol if layout else None
    fields["writer"] = layout.writer if layout else None
    fields["loads_on"] = layout.loads_on if layout else None
    fields["stopped_at"] = layout.stopped_at if layout else _first_offset(common["findings"])
    fields["findings"] = common["findings"]
    arrays = layout.parameters if layout else ()
    places = _positions(layout) if layout else ()
    fields["arrays"] = [
        _array_fields(index, array, item, _at(item.stats, at))
        for at, (index, array) in enumerate(zip(places, arrays, strict=True))
    ]
    return fields


def _positions(layout: UpdateLayout) -> Sequence[int]:
    """What the arrays are called by in findings and schemas."""
    return range(len(layout.parameters)) if layout.positions is None else layout.positions


def _first_offset(findings: Sequence[dict[str, Any]]) -> int | None:
    """Where a file was given up whose header already was refused."""
    return findings[0]["offset"] if findings else None


def _array_fields(
    index: int, array: ArrayLayout, item: Inspected, stats: ArrayStats | None
) -> dict[str, Any]:
    fields = {
        "index": index,
        "name": _at(item.names, index),
        "dtype": array.dtype,
        "shape": array.shape,
        "order": array.order,
        "offset": array.offset,
        "nbytes": array.nbytes,
        "aligned": array.aligned,
    }
    if stats is not None:
        fields["stats"] = stats._asdict()
    return fields


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


# --- text ------------------------------------------------------------------------------------


def _lines(item: Inspected) -> Iterator[str]:
    report = item.entry.outcome
    if isinstance(report, OSError):
        return
    layout = report.layout
    what = report.kind if layout else "not readable"
    verdict = "" if report.valid else ", invalid"
    yield f"{printable(item.entry.path)}: {what}, {size(report.nbytes)}{verdict}"
    if layout:
        yield from _summary(layout)
        yield from _table(layout, item)
        if item.stats:
            yield from _stats_table(layout, item)
    yield from finding_lines(report.findings)
    if layout and layout.stopped_at is not None:
        yield f"  reading stopped at offset {layout.stopped_at:,}; what follows is not described"


def _summary(layout: UpdateLayout) -> Iterator[str]:
    arrays = len(layout.parameters)
    stopped = layout.stopped_at is not None
    yield f"  num_samples  {_count(layout)}"
    so_far = " before reading stopped" if stopped else ""
    elements = f"{arrays:,} ({layout.num_elements:,} elements){so_far}"
    yield f"  parameters   {elements if arrays or not stopped else 'not read'}"
    written = WRITERS[layout.writer] if layout.writer else "unknown writer"
    form = f", form {layout.writer}" if layout.writer and len(layout.writer) == 1 else ""
    protocol = "" if layout.protocol is None else f", pickle protocol {layout.protocol}"
    yield f"  written by   {written}{form}{protocol}"
    if layout.loads_on:
        yield f"  loads on     numpy {layout.loads_on}"
    aligned = sum(array.aligned for array in layout.parameters)
    if arrays:
        share = "all" if aligned == arrays else f"{aligned:,} of {arrays:,}"
        yield f"  alignment    {share} payloads begin at a multiple of 64 bytes"


def _count(layout: UpdateLayout) -> str:
    if layout.num_samples is not None:
        return f"{layout.num_samples:,}"
    if layout.stopped_at is not None:
        return "not read"
    return "none" if layout.kind == "aggregate" else "none that is valid"


def _table(layout: UpdateLayout, item: Inspected) -> Iterator[str]:
    if not layout.parameters:
        return
    named = any(name is not None for name in item.names)
    rows = [
        (
            str(index),
            cut(_at(item.names, index) or "", 24) if named else "",
            array.dtype,
            cut(_shape(array), 30 if named else 46),
            size(array.nbytes),
        )
        for index, array in zip(_positions(layout), layout.parameters, strict=True)
    ]
    heads = ("index", "name" if named else "", "dtype", "shape", "size")
    yield from columns(heads, rows, right=(0, 4))


def _shape(array: ArrayLayout) -> str:
    return f"{array.shape}{' F' if array.order == 'F' else ''}"


def _stats_table(layout: UpdateLayout, item: Inspected) -> Iterator[str]:
    heads = ("index", "min", "max", "mean", "std", "norm", "zeros")
    rows = []
    for index, stats in zip(_positions(layout), item.stats, strict=True):
        if stats is not None:
            numbers = (stats.min, stats.max, stats.mean, stats.std, stats.norm)
            zeros = "-" if stats.zeros is None else f"{stats.zeros:.1%}"
            rows.append((str(index), *map(number, numbers), zeros))
    yield from columns(heads, rows, right=range(7))
