"""Text of strangers, made safe to show."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from bkformat.escape import github_property, github_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("na\u00efve \u6587", "na\u00efve \u6587"),
        ("a\nb\r\x1b[31m\x07\x00", r"a\nb\r\x1b[31m\x07\x00"),
        ("\u202eevil", r"\u202eevil"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_nothing_unsafe_is_left() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(every)
    shown.encode("utf-8")
    left = {unicodedata.category(char) for char in shown}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_workflow_commands() -> None:
    assert github_text("50%\n::error::x") == r"50%25\n::error::x"
    assert "\n" not in github_text("a\r\nb")
    assert github_property("a:b,c%\n") == r"a%3Ab%2Cc%25\n"
