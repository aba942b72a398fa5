"""What judging a file gives: findings and a report (values), and the one private exception.

Plain frozen dataclasses: importing pydantic costs more than judging a thousand files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bkformat.rules import ERROR, Rule

if TYPE_CHECKING:
    from bkformat.layout import UpdateLayout

__all__ = ["MAX_PER_RULE", "Finding", "Rejected", "Report", "bounded", "finding", "quoted"]

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

    def summary(self) -> str:
        """One line: "valid", or the first finding that counts and how many more there are."""
        against = [f for f in self.findings if self.strict or f.severity == ERROR]
        if not against:
            return "valid"
        first = against[0]
        others = self.num_errors + (self.num_warnings if self.strict else 0) - 1
        more = f" (and {others:,} more)" if others else ""
        where = f"{first.where}: " if first.where else ""
        return f"{first.code} {first.name}: {where}{first.message}{more}"


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
