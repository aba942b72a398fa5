"""Verdicts as text for people, JSON, GitHub annotations and JUnit XML: one table of renderers.

A renderer takes (path, outcome) one by one and yields pieces of text, so that thousands of files
are never held at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from bkformat.escape import as_utf8, github_property, github_text, printable
from bkformat.findings import Report, finding_lines

__all__ = ["FORMATS", "Entry", "Tally", "describe_trouble", "report_fields"]


class Entry(NamedTuple):
    """A file and its report, or why it could not be judged."""

    path: str
    outcome: Report | OSError


class Tally:
    """How many files were valid (some with warnings), invalid and not judged."""

    def __init__(self) -> None:
        self.valid = self.invalid = self.unjudged = self.warned = 0

    def count(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Pass entries on and count them."""
        for entry in entries:
            if isinstance(entry.outcome, OSError):
                self.unjudged += 1
            elif entry.outcome.valid:
                self.valid += 1
                self.warned += bool(entry.outcome.findings)
            else:
                self.invalid += 1
            yield entry

    def exit_code(self) -> int:
        """0 where every file is valid, 1 where one is refused, 2 where one was not judged."""
        if self.unjudged or not (self.valid or self.invalid):
            return 2
        return 1 if self.invalid else 0

    def fields(self) -> dict[str, int]:
        return {"valid": self.valid, "invalid": self.invalid, "unjudged": self.unjudged}

    def sentence(self) -> str:
        total = self.valid + self.invalid + self.unjudged
        parts = [f"{count:,} {name}" for name, count in self.fields().items() if count]
        if self.warned:
            parts[0] += f" ({self.warned:,} with warnings)"
        return f"{total:,} file{'s' if total != 1 else ''}: {', '.join(parts)}"


def describe_trouble(error: OSError) -> str:
    """Why a file could not be judged, in one line without its name."""
    return printable(error.strerror or str(error) or type(error).__name__)


# --- text ------------------------------------------------------------------------------------


def _text(entries: Iterable[Entry], tally: Tally, quiet: bool) -> Iterator[str]:
    for path, outcome in tally.count(entries):
        if isinstance(outcome, OSError) or (quiet and outcome.valid):
            continue
        yield f"{printable(path)}: {outcome}\n"
    if not quiet and tally.valid + tally.invalid + tally.unjudged > 1:
        yield f"{tally.sentence()}\n"


# --- JSON ------------------------------------------------------------------------------------


def report_fields(entry: Entry) -> dict[str, Any]:
    """What the JSON says of one file."""
    report = None if isinstance(entry.outcome, OSError) else entry.outcome
    layout = report.layout if report is not None else None
    return {
        "path": as_utf8(entry.path),
        "valid": report.valid if report is not None else None,
        "error": describe_trouble(entry.outcome) if isinstance(entry.outcome, OSError) else None,
        "kind": report.kind if report is not None else None,
        "num_samples": layout.num_samples if layout else None,
        "num_parameters": len(layout.parameters) if layout else None,
        "nbytes": report.nbytes if report is not None else None,
        "sha256": report.sha256 if report is not None else None,
        "findings": [asdict(found) for found in report.findings] if report is not None else [],
    }


def _json(entries: Iterable[Entry], tally: Tally, quiet: bool) -> Iterator[str]:
    yield '{"version": 1, "files": ['
    for index, entry in enumerate(tally.count(entries)):
        yield f"{',' if index else ''}\n{json.dumps(report_fields(entry))}"
    yield f'\n], "summary": {json.dumps(tally.fields())}}}\n'


# --- GitHub ----------------------------------------------------------------------------------


def _github(entries: Iterable[Entry], tally: Tally, quiet: bool) -> Iterator[str]:
    """Workflow commands: an annotation for each finding."""
    for path, outcome in tally.count(entries):
        file = github_property(path)
        if isinstance(outcome, OSError):
            reason = github_text(f"could not be judged: {describe_trouble(outcome)}")
            yield f"::error file={file},title=bkformat::{reason}\n"
            continue
        for found in outcome.findings:
            title = github_property(f"{found.code} {found.name}")
            where = f"{found.where}: " if found.where else ""
            message = github_text(f"{where}{found.message}")
            hint = "%0Afix: " + github_text(found.hint) if found.hint else ""
            yield f"::{found.severity} file={file},title={title}::{message}{hint}\n"
    if not quiet:
        yield f"{tally.sentence()}\n"


# --- JUnit -----------------------------------------------------------------------------------


def _junit(entries: Iterable[Entry], tally: Tally, quiet: bool) -> Iterator[str]:
    cases = [_junit_case(entry) for entry in tally.count(entries)]
    counts = (
        f'tests="{len(cases)}" failures="{tally.invalid}" errors="{tally.unjudged}" skipped="0"'
    )
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<testsuites {counts}>\n<testsuite name="bkformat" {counts}>\n'
    yield from cases
    yield "</testsuite>\n</testsuites>\n"


def _junit_case(entry: Entry) -> str:
    start = f'<testcase classname="bkformat.validate" name={_attribute(entry.path)}'
    if isinstance(entry.outcome, OSError):
        reason = _attribute(describe_trouble(entry.outcome))
        return f"{start}><error message={reason}/></testcase>\n"
    body = _xml("\n".join(finding_lines(entry.outcome.findings)))
    if entry.outcome.valid:
        return f"{start}><system-out>{body}</system-out></testcase>\n" if body else f"{start}/>\n"
    summary = _attribute(entry.outcome.summary())
    return f"{start}><failure message={summary}>{body}</failure></testcase>\n"


def _xml(text: str) -> str:
    """Text of an element or attribute: markup escaped, and of control characters only line ends."""
    safe = "\n".join(printable(line) for line in text.split("\n"))
    return (
        safe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def _attribute(text: str) -> str:
    return f'"{_xml(printable(text))}"'


Renderer = Callable[[Iterable[Entry], Tally, bool], Iterator[str]]

FORMATS: dict[str, Renderer] = {"text": _text, "json": _json, "github": _github, "junit": _junit}
"""Renderers by the name that --format takes."""
