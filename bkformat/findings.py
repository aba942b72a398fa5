"""What judging a file gives: findings and a report (values), and the one private exception.

Plain frozen dataclasses: importing pydantic costs more than judging a thousand files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from bkformat.rules import ERROR, Rule

if TYPE_CHECKING:
    from bkformat.layout import UpdateLayout

__all__ = [
    "MAX_PER_RULE",
    "Finding",
    "Rejected",
    "Report",
    "bounded",
    "finding",
    "finding_lines",
    "quoted",
]

MAX_PER_RULE = 100
"""Findings of one rule that are listed one by one; one more then says how many were left out."""


@dataclass(frozen=True)
class Finding:
    """One breach of one rule at one place.

    Attributes:
        code: the rule's permanent code, such as "BK311".
        name: the rule's name, such as "num-samples-range".
        severity: "error" or "warning".
        message: one line that says what was found.
        offset: bytes from the start of the file, or None where no single byte is to blame.
        where: the path inside the update, such as "parameters[3].shape"; "" for the file itself.
        hint: one line that says what to do, or None.
    """

    code: str
    name: str
    severity: str
    message: str
    offset: int | None = None
    where: str = ""
    hint: str | None = None


@dataclass(frozen=True)
class Report:
    """Everything that judging one file found.

    Attributes:
        kind: "update" or "aggregate": what the file was judged as.
        nbytes: bytes of the whole file.
        findings: in the order of the stages, then of the file.
        layout: what the file says, as far as it was readable, or None.
        strict: whether a warning makes the file invalid too.
        sha256: hexadecimal digest of the file, where asked for.
        values_checked: whether every value was looked at.
        omitted_errors: errors that are not listed; the last finding of their rule counts them.
        omitted_warnings: the same for warnings.
    """

    kind: str
    nbytes: int
    findings: tuple[Finding, ...] = ()
    layout: UpdateLayout | None = field(default=None, repr=False)
    strict: bool = False
    sha256: str | None = None
    values_checked: bool = False
    omitted_errors: int = 0
    omitted_warnings: int = 0

    @property
    def valid(self) -> bool:
        """True when nothing found makes the file invalid."""
        return not any(self.strict or found.severity == ERROR for found in self.findings)

    @property
    def num_errors(self) -> int:
        """Errors found, those that are not listed included."""
        return sum(f.severity == ERROR for f in self.findings) + self.omitted_errors

    @property
    def num_warnings(self) -> int:
        """Warnings found, those that are not listed included."""
        return sum(f.severity != ERROR for f in self.findings) + self.omitted_warnings

    def __bool__(self) -> NoReturn:
        """Refused: an invalid report would be true, as any object is."""
        raise TypeError("a report is neither true nor false; ask for report.valid")

    def __str__(self) -> str:
        """The verdict and every finding with its remedy, for a terminal of 80 columns."""
        digest = [f"  sha256 {self.sha256}"] if self.sha256 else []
        return "\n".join([self._verdict(), *finding_lines(self.findings), *digest])

    def _verdict(self) -> str:
        errors, warnings = self.num_errors, self.num_warnings
        counts = [_plural(errors, "error")] if errors else []
        counts += [_plural(warnings, "warning")] if warnings else []
        if not self.valid:
            return f"invalid ({', '.join(counts)})"
        about = [self.kind]
        if self.layout is not None:
            if self.layout.num_samples is not None:
                about.append(f"num_samples {self.layout.num_samples:,}")
            about.append(_plural(len(self.layout.parameters), "array"))
        unchecked = [] if self.values_checked else ["values not checked"]
        return f"valid ({', '.join([*about, *unchecked, *counts])})"

    def summary(self) -> str:
        """One line: "valid", or the first finding that counts and how many more there are."""
        first = self._first()
        if first is None:
            return "valid"
        others = self.num_errors + (self.num_warnings if self.strict else 0) - 1
        more = f" (and {others:,} more)" if others else ""
        where = f"{first.where}: " if first.where else ""
        return f"{first.code} {first.name}: {where}{first.message}{more}"

    def remedy(self) -> str | None:
        """What to do about the finding of the summary, in one line; None where there is none."""
        first = self._first()
        return first.hint if first is not None else None

    def _first(self) -> Finding | None:
        """The first finding that makes the file invalid."""
        return next((f for f in self.findings if self.strict or f.severity == ERROR), None)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """Findings for a terminal of 80 columns: what, where, what to do; the same remedy said once."""
    import textwrap  # where there is nothing to say, it is not needed

    wrap = partial(textwrap.wrap, width=80, break_long_words=True)
    lines: list[str] = []
    said: set[tuple[str, str]] = set()
    for found in findings:
        place = [found.where] if found.where else []
        if found.offset is not None:
            place.append(f"offset {found.offset:,}")
        head = f"  {found.code} {found.name}"
        head += " (warning)" if found.severity != ERROR else ""
        lines.append(f"{head}: {', '.join(place)}" if place else head)
        lines += wrap(found.message, initial_indent=" " * 4, subsequent_indent=" " * 4)
        if found.hint and (found.code, found.hint) not in said:
            said.add((found.code, found.hint))
            lines += wrap(found.hint, initial_indent="    fix: ", subsequent_indent=" " * 9)
    return lines


class Rejected(Exception):  # noqa: N818  (a verdict on the input, not an error of ours)
    """A stage stops here: nothing after this offset can be trusted. Never leaves `validate`."""

    def __init__(
        self, rule: Rule, offset: int, message: str, *, where: str = "", hint: str | None = None
    ) -> None:
        super().__init__(rule.code, offset, message)
        self.finding = finding(rule, message, offset=offset, where=where, hint=hint)


def finding(
    rule: Rule, message: str, *, offset: int | None = None, where: str = "", hint: str | None = None
) -> Finding:
    """A breach of `rule`; the hint is the rule's own remedy unless a better one is given."""
    return Finding(
        rule.code,
        rule.name,
        rule.severity,
        message,
        offset,
        where,
        rule.fix if hint is None else hint,
    )


def quoted(text: object) -> str:
    """A stranger's text for a message: escaped by repr and cut at 80 characters."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def bounded(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """At most MAX_PER_RULE findings of each rule, then one that counts the rest."""
    findings = tuple(findings)
    if len(findings) <= MAX_PER_RULE:
        return findings
    total = Counter(found.code for found in findings)
    seen: Counter[str] = Counter()
    kept = []
    for found in findings:
        seen[found.code] += 1
        if seen[found.code] <= MAX_PER_RULE:
            kept.append(found)
        elif seen[found.code] == MAX_PER_RULE + 1:
            more = f"and {total[found.code] - MAX_PER_RULE:,} more {found.name} findings"
            kept.append(replace(found, message=more, offset=None, where="", hint=None))
    return tuple(kept)
