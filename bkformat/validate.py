"""Opens, runs the stages, and gives a verdict as a `Report`.

`check_*` never raises for bad content; `inspect_file` gives the layout alone. This is the only
module that catches `Rejected`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bkformat.errors import InvalidUpdateError
from bkformat.findings import Finding, Rejected, Report, bounded
from bkformat.layout import Kind, LayoutReader, UpdateLayout
from bkformat.rules import ERROR
from bkformat.source import BytesSource, Source, open_file
from bkformat.symbolic import SymbolicUnpickler
from bkformat.symbols import ObjectArray

if TYPE_CHECKING:
    from bkformat.schema import UpdateSchema

__all__ = [
    "Examined",
    "Judged",
    "check_bytes",
    "check_file",
    "check_options",
    "check_structure",
    "examine",
    "inspect_file",
    "judge",
    "judge_file",
    "source_of",
]


class Judged(NamedTuple):
    """A report and the bytes outside payloads that it rests on, as (offset, bytes)."""

    report: Report
    structure: list[tuple[int, bytes]]


class Examined(NamedTuple):
    """A report on the structure alone, what the pickle builds, and what read it."""

    report: Report
    root: ObjectArray | None
    machine: SymbolicUnpickler | None


def check_file(
    path: str | os.PathLike[str],
    *,
    schema: UpdateSchema | None = None,
    kind: Kind = "update",
    values: bool = True,
    strict: bool = False,
    sha256: bool = False,
    jobs: int = 1,
    max_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Judge a file; it is read by pread alone and nothing in it is executed.

    Args:
        path: a regular file; links are followed.
        schema: what the receiver expects, beyond what every update must be.
        kind: "update", or "aggregate" to accept an array of arrays without a count too.
        values: look at every value for NaN and infinities.
        strict: warnings make the file invalid too.
        sha256: also give the digest of the file.
        jobs: threads that look at the values of a large file.
        max_size: bytes; a larger file is not judged.
        progress: called now and then with the bytes that were read since; from any thread.

    Returns:
        A report, for every content whatsoever.

    Raises:
        OSError: the file can't be opened or read, is no regular file, or is past `max_size`.
        UpdateChangedError: the file was changed while it was judged (an `OSError` too).

    >>> check_file("fixtures/valid/base-numpy-2.4.6-python-3.11.npy").valid
    True
    >>> check_file("fixtures/invalid/BK101-empty.npy").summary()
    'BK101 empty-file: the file is empty'
    """
    check_options(schema=schema, kind=kind, jobs=jobs, max_size=max_size)
    return judge_file(path, max_size, schema, kind, values, strict, sha256, jobs, progress)


def judge_file(
    path: str | os.PathLike[str], max_size: int | None = None, *options: Any, **named: Any
) -> Report:
    """`check_file` with options that were checked before, for thousands of files."""
    with open_file(path, max_size) as source:
        return judge(source, *options, **named).report


def check_bytes(
    data: bytes | bytearray | memoryview,
    *,
    schema: UpdateSchema | None = None,
    kind: Kind = "update",
    values: bool = True,
    strict: bool = False,
    sha256: bool = False,
) -> Report:
    """Judge a file that is already in memory; arguments as for `check_file`.

    >>> check_bytes(b"").findings[0].code
    'BK101'
    """
    check_options(schema=schema, kind=kind)
    return judge(source_of(data), schema, kind, values, strict, sha256, 1).report


def inspect_file(path: str | os.PathLike[str], *, kind: Kind | None = None) -> UpdateLayout:
    """What a file says, without looking at any value.

    Args:
        path: a regular file; links are followed.
        kind: "update" or "aggregate"; None takes an array of arrays alone for an aggregate.

    Returns:
        The layout of a file that was read to its end, valid or not.

    Raises:
        InvalidUpdateError: reading had to stop; `.report.layout` holds what was readable.
        OSError: the file can't be opened or read, or is no regular file.
    """
    if kind is not None:
        check_options(kind=kind)
    with open_file(path) as source:
        report = judge(source, None, kind, values=False).report
    if report.layout is None or report.layout.stopped_at is not None:
        raise InvalidUpdateError(report)
    return report.layout


def source_of(data: bytes | bytearray | memoryview) -> BytesSource:
    """A source over a byte string; what could change later is copied."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"bytes expected, not {type(data).__name__}")
    return BytesSource(bytes(data))


def check_options(
    *,
    schema: object = None,
    kind: object = "update",
    jobs: object = 1,
    max_size: object = None,
) -> None:
    """Refuse what a caller got wrong before any file is opened.

    Raises:
        TypeError: of another type; a path or a dict as schema is told what to do.
        ValueError: out of range, or a misspelt kind.
    """
    if kind not in ("update", "aggregate"):
        raise ValueError(f'kind is "update" or "aggregate", not {kind!r}')
    if schema is not None and not hasattr(schema, "allowed_dtypes"):
        raise TypeError(
            f"schema is an UpdateSchema, not {type(schema).__name__}; "
            "use load_schema(path) or UpdateSchema.model_validate(dict)"
        )
    for name, value in (("jobs", jobs), ("max_size", max_size)):
        if value is None and name == "max_size":
            continue
        if not isinstance(value, int):
            raise TypeError(f"{name} is an int, not {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name} is at least 1, not {value}")


def judge(
    source: Source,
    schema: UpdateSchema | None = None,
    kind: Kind | None = "update",
    values: bool = True,
    strict: bool = False,
    sha256: bool = False,
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
    *,
    fast: bool = True,
) -> Judged:
    """Run all stages on a source; `fast` False leaves out every accelerator, for tests."""
    reader = LayoutReader(
        source,
        kind=kind,
        allowed=schema.allowed_dtypes if schema is not None else frozenset(),
        allow_empty=schema is not None and schema.allows_empty,
        keep_structure=sha256,
        fast=fast,
    )
    layout, findings = _read_layout(reader)
    complete = layout is not None and layout.stopped_at is None
    if layout is not None and complete and schema is not None:
        from bkformat.comparison import compare_layout

        findings += compare_layout(layout, schema, positions=reader.comparable)
    values = values and complete
    structure = reader.structure() if sha256 else []
    digest = None
    if sha256 or values:
        found, digest = _judge_values(
            source, structure if sha256 else None, layout, schema, values, jobs, progress
        )
        findings += _placed(found, layout)
    source.check_unchanged()
    return Judged(_report(source, layout, kind, findings, strict, digest, values), structure)


def examine(source: Source, unpickler: type[SymbolicUnpickler] | None = None) -> Examined:
    """Read the structure of a file of either kind.

    Args:
        source: the file.
        unpickler: reads the stream in place of the strict one.
    """
    reader = LayoutReader(source, kind=None, fast=False, unpickler=unpickler)
    layout, findings = _read_layout(reader)
    report = _report(source, layout, None, findings, False, None, False)
    return Examined(report, reader.root, reader.machine)


def check_structure(source: Source, kind: Kind, sha256: str | None, found: list[Finding]) -> Report:
    """The report on a file that was hashed, and whose values were looked at, while it was written.

    Args:
        source: the finished file.
        kind: "update" or "aggregate".
        sha256: its digest, where it was wanted.
        found: the findings of stage 4.
    """
    layout, findings = _read_layout(LayoutReader(source, kind=kind))
    return _report(source, layout, kind, findings + found, False, sha256, True)


def _report(
    source: Source,
    layout: UpdateLayout | None,
    kind: Kind | None,
    findings: list[Finding],
    strict: bool,
    sha256: str | None,
    values: bool,
) -> Report:
    listed = bounded(findings)
    return Report(
        (layout.kind if layout else None) or kind or "update",
        source.nbytes,
        listed,
        layout,
        strict,
        sha256,
        values,
        *_omitted(findings, listed),
    )


def _omitted(findings: list[Finding], listed: tuple[Finding, ...]) -> tuple[int, int]:
    """Errors and warnings that were left out of a report."""
    if len(findings) == len(listed):
        return 0, 0
    errors = [sum(found.severity == ERROR for found in some) for some in (findings, listed)]
    omitted = len(findings) - len(listed)
    return errors[0] - errors[1], omitted - (errors[0] - errors[1])


_ARRAY = re.compile(r"parameters\[(\d+)\]")


def _placed(findings: list[Finding], layout: UpdateLayout | None) -> list[Finding]:
    """The findings with the positions that the arrays have in a list that holds other items too."""
    positions = layout.positions if layout else None
    if positions is None:
        return findings

    def moved(match: re.Match[str]) -> str:
        return f"parameters[{positions[int(match[1])]}]"

    return [replace(found, where=_ARRAY.sub(moved, found.where)) for found in findings]


def _read_layout(reader: LayoutReader) -> tuple[UpdateLayout | None, list[Finding]]:
    try:
        layout = reader.read()
    except Rejected as rejected:
        stop = reader.place(rejected.finding)
        return reader.partial(stop.offset), [*reader.findings, stop]
    return layout, reader.findings


def _judge_values(
    source: Source,
    structure: list[tuple[int, bytes]] | None,
    layout: UpdateLayout | None,
    schema: UpdateSchema | None,
    values: bool,
    jobs: int,
    progress: Callable[[int], None] | None,
) -> tuple[list[Finding], str | None]:
    """The findings of stage 4, and the digest where `structure` asks for it."""
    from bkformat.values import FINITE, ValueRules, hash_and_judge, judge_values  # imports numpy

    wanted = ValueRules(schema.finite, schema.max_abs) if schema else FINITE
    arrays = layout.parameters if layout else ()
    if structure is None:
        return judge_values(source, arrays, wanted, jobs=jobs, progress=progress), None
    digest, found = hash_and_judge(
        source, structure, arrays, wanted if values else None, progress=progress
    )
    return found, digest
