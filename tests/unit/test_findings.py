"""Findings and reports."""

from __future__ import annotations

import numpy as np
import pytest

from bkformat import Finding, Report, check_bytes, rules
from bkformat.findings import MAX_PER_RULE, Rejected, bounded, finding, quoted

from .files import update, zeros

_ERROR = finding(rules.NAN, "3 of 4 values", offset=9, where="parameters[0]")
_WARNING = finding(rules.BOOL_ARRAY, "bool", offset=5)


def test_a_finding_takes_its_names_from_the_rule() -> None:
    wanted = ("BK401", "nan", "error", "3 of 4 values", 9, "parameters[0]", rules.NAN.fix)
    assert Finding(*wanted) == _ERROR
    assert finding(rules.NAN, "x", hint="do this").hint == "do this"


@pytest.mark.parametrize(
    ("findings", "valid", "strictly"),
    [((), True, True), ((_WARNING,), True, False), ((_WARNING, _ERROR), False, False)],
)
def test_valid(findings: tuple[Finding, ...], valid: bool, strictly: bool) -> None:
    assert Report("update", 1, findings).valid is valid
    assert Report("update", 1, findings, strict=True).valid is strictly


def test_summary_is_the_first_that_counts() -> None:
    assert Report("update", 1, (_WARNING,)).summary() == "valid"
    strict = Report("update", 1, (_WARNING,), strict=True)
    assert strict.summary() == "BK602 bool-array: bool"
    both = Report("update", 1, (_WARNING, _ERROR, _ERROR))
    assert both.summary() == "BK401 nan: parameters[0]: 3 of 4 values (and 1 more)"


def test_reports_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Report("update", 1).strict = True  # type: ignore[misc]


def test_quoted_escapes_and_cuts() -> None:
    assert quoted("a\nb\x1b[31m\u00e9") == r"'a\nb\x1b[31m\xe9'"
    assert len(quoted("x" * 1000)) == 80
    assert quoted("x" * 1000).endswith("...")
    assert len(quoted("x" * 78)) == 80
    assert not quoted("x" * 78).endswith("...")


def test_bounded_lists_a_hundred_and_counts_the_rest() -> None:
    many = [finding(rules.NAN, str(at), offset=at) for at in range(MAX_PER_RULE + 5)]
    found = bounded([*many, _WARNING])
    assert list(found[:MAX_PER_RULE]) == many[:MAX_PER_RULE]
    more = found[MAX_PER_RULE]
    assert (more.code, more.message) == ("BK401", "and 5 more nan findings")
    assert (more.offset, more.where, more.hint) == (None, "", None)
    assert found[MAX_PER_RULE + 1 :] == (_WARNING,)


def test_bounded_leaves_a_hundred_as_they_are() -> None:
    many = [finding(rules.NAN, str(at)) for at in range(MAX_PER_RULE)]
    assert bounded(many) == tuple(many)
    mixed = [finding(rule, "x") for rule in (rules.NAN, rules.INFINITY) for _ in range(80)]
    assert bounded(mixed) == tuple(mixed)


def test_rejected_carries_the_finding() -> None:
    rejected = Rejected(rules.EMPTY_FILE, 0, "empty", where="x", hint="y")
    assert rejected.finding == finding(rules.EMPTY_FILE, "empty", offset=0, where="x", hint="y")
    assert rejected.args == ("BK101", 0, "empty")


def test_a_report_is_no_truth_value() -> None:
    for data in (b"", update(*zeros((2,)))):
        with pytest.raises(TypeError, match=r"ask for report\.valid"):
            bool(check_bytes(data))


def test_a_report_is_printed_as_the_command_line_does() -> None:
    good = update(*zeros((2,), (3,)), num_samples=1000)
    assert str(check_bytes(good)) == "valid (update, num_samples 1,000, 2 arrays)"
    assert "values not checked" in str(check_bytes(good, values=False))
    bad = update(np.full(2, np.nan), np.full(3, np.nan))
    lines = str(check_bytes(bad)).splitlines()
    assert lines[0] == "invalid (2 errors)"
    assert [line.split(":")[0] for line in lines if ":" in line] == [
        "  BK401 nan", "    fix", "  BK401 nan",
    ]  # fmt: skip
    assert "layout" not in repr(check_bytes(bad))
